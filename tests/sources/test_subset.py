"""Some records of a source: rules and lists of rows, splits, and the records of a ledger."""

import numpy as np
import pytest

from datarax.pipeline import Pipeline
from datarax.sources import Fault, Fields, MemorySource, RawRecord, ShardedSource
from datarax.sources.subset import SPLITS, SplitRows, SubsetSource, rows_of_faults

SOURCE = MemorySource({"x": np.arange(20)})


class Listed:
    """A shard of one number a record; "?" cannot be read."""

    faults = ()

    def __init__(self, name, numbers):
        self.name, self.numbers = name, numbers

    def __len__(self):
        return len(self.numbers)

    def read(self, row):
        return RawRecord(f"{self.name}{row}", {"n": self.numbers[row]})

    def identity(self):
        return self.name


def of_shards(**numbers):
    fields = Fields.from_mapping({"n": {"from": "n", "decode": "number"}})
    return ShardedSource([Listed(*item) for item in numbers.items()], fields=fields)


def split(size, name, every=6):
    return SplitRows(size, every=every, split=name)


@pytest.mark.parametrize("size", [0, 1, 2, 5, 6, 7, 60, 61, 64])
@pytest.mark.parametrize("every", [3, 6])
def test_splits_are_disjoint_whole_and_stay_when_records_are_added(size, every):
    parts = {name: list(split(size, name, every)) for name in SPLITS}
    assert sorted(row for rows in parts.values() for row in rows) == list(range(size))
    assert all(rows == sorted(rows) for rows in parts.values())
    for name, rows in parts.items():
        whole = size // every * every
        blocks = np.bincount(np.array([r for r in rows if r < whole], int) // every)
        assert set(blocks) <= {every - 2 if name == "train" else 1}
        assert list(split(size + 5, name, every))[: len(rows)] == rows


def test_data_of_any_period_falls_evenly_on_the_splits():
    for period in (2, 3, 4, 5, 10, 20):
        for name in ("validation", "test"):
            rows = np.array(split(20000, name, every=10))
            shares = np.bincount(rows % period, minlength=period) / len(rows)
            np.testing.assert_allclose(shares, 1 / period, atol=0.04)


def test_a_rule_is_a_sequence():
    rule = split(20, "train", every=4)
    listed = list(rule)
    assert [rule[i] for i in range(-len(rule), len(rule))] == listed * 2
    assert rule[2:7:2] == listed[2:7:2]
    with pytest.raises(IndexError, match="number 10 of 10"):
        rule[10]
    far = split(10**15, "train", every=10)
    assert len(far) == 8 * 10**14  # no list of them
    assert far[10**14] // 10 == 10**14 // 8
    with pytest.raises(ValueError, match=r"split must be one of .* got 'all'"):
        split(20, "all")
    with pytest.raises(ValueError, match="every must be at least 3, got 2"):
        split(20, "train", every=2)


def test_records_keep_their_data_and_what_the_source_says():
    subset = SubsetSource(SOURCE, [7, 3, 19])
    assert [int(element.data["x"]) for element in subset] == [7, 3, 19]
    assert int(subset[-1].data["x"]) == 19
    assert subset.element_spec() == SOURCE.element_spec()
    assert subset.optional == ()
    with pytest.raises(IndexError, match="record 3 of a source of 3"):
        subset[3]
    with pytest.raises(ValueError, match="a subset of 20 records needs at least one"):
        SubsetSource(SOURCE, [])


def test_the_fingerprint_changes_with_the_rows_and_the_source():
    other = MemorySource({"x": np.arange(20)[::-1]})
    made = [
        SubsetSource(SOURCE, [1, 2]),
        SubsetSource(SOURCE, [2, 1]),
        SubsetSource(SOURCE, range(1, 3)),
        SubsetSource(SOURCE, split(20, "train", every=4)),
        SubsetSource(SOURCE, split(20, "test", every=4)),
        SubsetSource(other, [1, 2]),
    ]
    assert len({subset.fingerprint() for subset in made}) == len(made)
    assert made[0].fingerprint() == SubsetSource(SOURCE, np.array([1, 2])).fingerprint()


def test_a_run_over_what_a_ledger_lists():
    numbers = ["?", 1, 2, "?", 4, 5, "?"]
    source = of_shards(a=numbers, b=numbers)
    with Pipeline(source, batch_size=14, seed=0, shuffle=False, hosts=1, host=0) as pipeline:
        next(pipeline)
        faults = pipeline.ledger.faults
    assert [(fault.shard, fault.row) for fault in faults] == [
        (name, row) for name in "ab" for row in (0, 3, 6)
    ]
    faults = (*faults, Fault("a", reason="cut off"), Fault("c", row=1), Fault("b", row=99))
    rows = rows_of_faults(source, faults)
    assert rows == [0, 3, 6, 7, 10, 13]
    again = SubsetSource(of_shards(a=[5] * 7, b=[5] * 7), rows)
    assert [element.metadata["key"] for element in again] == ["a0", "a3", "a6", "b0", "b3", "b6"]


def test_many_at_once_where_the_source_can():
    source = of_shards(a=[1, "?", 3], b=[4])
    inner = SubsetSource(source, [3, 1, -2, 0])
    subset = SubsetSource(inner, range(3, -1, -1))
    column = np.zeros(4, np.float32)
    metadata, lacking, lost = subset.read_into(range(4), {"n": column})
    assert column[[0, 1, 3]].tolist() == [1, 3, 4]
    assert lacking == {}
    assert [(row, why.fault.key) for row, why in lost.items()] == [(2, "a1")]
    assert metadata[3] == subset[3].metadata == {"key": "b0", "shard": "b", "row": 0}
    again = SubsetSource(inner, np.arange(3, -1, -1)).read_into([3, -4], {"n": column})
    assert [again.metadata[0], again.lost] == [subset[3].metadata, {}]
    assert column[:2].tolist() == [4, 1]
    with pytest.raises(IndexError):
        SubsetSource(inner, np.arange(4)).read_into([4], {"n": column})
    assert SubsetSource(SOURCE, [0]).read_into is None
