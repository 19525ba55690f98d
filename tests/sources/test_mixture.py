import collections
import itertools
import logging

import jax
import numpy as np
import pytest

from datarax.core.config import DataraxModuleConfig
from datarax.core.data_source import DataSourceModule
from datarax.core.element_batch import Element
from datarax.sources import MemorySource
from datarax.sources.mixture import MixtureSource
from datarax.sources.record import Fault, RawRecord, RecordError
from datarax.sources.sharded import ShardedSource, fields_of


def numbers(first, size, name="x"):
    return MemorySource({name: np.arange(first, first + size)})


def three(**options):
    sources = {"a": numbers(0, 5), "b": numbers(100, 30), "c": numbers(1000, 7)}
    return MixtureSource(sources, {"a": 1, "b": 3, "c": 0.5}, **options)


@pytest.mark.parametrize("records", [None, 9, 10, 97, 1000])
def test_shares_rows_and_spread_against_a_walk(records):
    mixture = three(records=records)
    firsts, sizes = {"a": 0, "b": 100, "c": 1000}, {"a": 5, "b": 30, "c": 7}
    taken = collections.Counter()
    for index in range(len(mixture)):
        name, row = mixture.place(index)
        assert row == taken[name] % sizes[name]
        record = mixture[index]
        assert record.data["x"] == firsts[name] + row
        assert record.metadata == {"source": name}
        taken[name] += 1
        for other, weight in {"a": 1, "b": 3, "c": 0.5}.items():
            assert abs(taken[other] - weight / 4.5 * (index + 1)) < 2.5
    assert dict(taken) == mixture.shares_by_name()
    for name, weight in {"a": 1, "b": 3, "c": 0.5}.items():
        assert abs(taken[name] - weight / 4.5 * len(mixture)) < 1
    with pytest.raises(IndexError, match=f"record {len(mixture)} of a source of {len(mixture)}"):
        mixture[len(mixture)]
    assert mixture[-1].data == mixture[len(mixture) - 1].data


def test_by_default_every_record_comes_and_no_fewer_would_do():
    mixture = three()
    assert len({mixture.place(i) for i in range(len(mixture))}) == 5 + 30 + 7
    assert len(mixture) == 63  # c: 7 records in a ninth


class Listed:
    """A shard of numbers and perhaps names; "?" cannot be read."""

    name, faults = "listed", ()

    def __init__(self, parts):
        self.parts = parts

    def __len__(self):
        return len(self.parts)

    def read(self, row):
        return RawRecord(f"k{row}", self.parts[row])

    def identity(self):
        return self.name


def test_many_at_once_are_what_one_after_another_are():
    number = {"n": {"from": "n", "decode": "number"}}
    name = {"a": {"from": "txt", "decode": "text", "length": 4, "missing": "mask"}}
    z = {"z": {"from": "n", "decode": "number"}}
    plain = ShardedSource([Listed([{"n": 1}, {"n": "?"}, {"n": 3}])], fields=fields_of(number | z))
    named = [{"n": 5, "txt": "ab"}, {"n": 6}, {"n": "?", "txt": "c"}]
    both = ShardedSource([Listed(named)], fields=fields_of(number | name))
    mixture = MixtureSource({"both": both, "plain": plain}, {"both": 2, "plain": 1})
    order = [4, 0, 8, 1, 2, 3, -4, 7, 6]
    columns = {
        key: np.full((len(order), *kind.shape), 85, kind.dtype)  # whatever was there before
        for key, kind in mixture.element_spec().items()
    }
    metadata, lacking, lost = mixture.read_into(order, columns)
    for row, record in enumerate(order):
        there = {key: column[row] for key, column in columns.items()}
        try:
            expected = mixture[record]
        except RecordError as error:
            fault = error.fault
            expected = None
        if expected is None:
            assert (lost.pop(row).fault, metadata[row]) == (fault, {})
            continue
        assert metadata[row] == expected.metadata
        assert lacking.pop(row, []) == [key for key in columns if key not in expected.data]
        for key, value in expected.data.items():
            np.testing.assert_array_equal(there[key], value)
    assert lacking == lost == {}
    assert (
        MixtureSource({"plain": plain, "x": numbers(0, 3)}, {"plain": 1, "x": 1}).read_into is None
    )


def test_a_large_epoch_costs_no_more():
    far = three(records=10**15)
    name, row = far.place(10**15 - 1)
    assert (name in "abc", 0 <= row < 30) == (True, True)
    assert far.shares_by_name()["b"] == 666666666666667


def test_different_fields_become_optional():
    images = MemorySource({"image": np.zeros((2, 3), np.uint8), "id": np.arange(2)})
    texts = MemorySource(
        {"text": np.zeros((2, 4), np.uint8), "id": np.arange(2)},
        presence={"text": [True, False]},
    )
    mixture = MixtureSource({"images": images, "texts": texts}, {"images": 1, "texts": 1})
    assert list(mixture.element_spec()) == ["image", "id", "text"]
    assert mixture.element_spec()["text"] == jax.ShapeDtypeStruct((4,), np.uint8)
    assert set(mixture.optional) == {"image", "text"}
    assert [sorted(record.data) for record in mixture] in (
        [list(fields) for fields in order]
        for order in itertools.permutations([("id", "image")] * 2 + [("id", "text"), ("id",)])
    )


def test_a_field_of_two_kinds_is_refused_naming_all():
    sources = {"a": numbers(0, 2), "b": MemorySource({"x": np.zeros((2, 3), np.int64)})}
    message = r"field 'x' differs .* a has int64\[\], b has int64\[3\]"
    with pytest.raises(ValueError, match=message):
        MixtureSource(sources, {"a": 1, "b": 1})
    sources["b"] = MemorySource({"x": np.zeros(2, np.float32)})
    with pytest.raises(ValueError, match=r"a has int64\[\], b has float32\[\]"):
        MixtureSource(sources, {"a": 1, "b": 1})


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 1}, r"sources \['a', 'b'\], weights \['a'\]"),
        ({"a": 1, "b": 1, "c": 1}, "weights must name each source"),
        ({"a": 1, "b": -1}, r"at least 0.*\{'b': -1\}"),
        ({"a": 1, "b": float("nan")}, "finite"),
        ({"a": 0, "b": 0}, "not all 0"),
    ],
)
def test_weights_that_do_not_fit(weights, message):
    with pytest.raises(ValueError, match=message):
        MixtureSource({"a": numbers(0, 2), "b": numbers(0, 2)}, weights)


def test_other_refusals():
    with pytest.raises(ValueError, match="at least one source"):
        MixtureSource({}, {})
    with pytest.raises(ValueError, match="records must be at least 1, got 0"):
        three(records=0)
    with pytest.raises(ValueError, match="on_starved must be one of"):
        three(on_starved="ignore")


@pytest.mark.parametrize("weights", [{"a": 1000, "b": 1}, {"a": 1, "b": 0}])
def test_a_starved_source_is_refused_or_warned_of(weights, caplog):
    sources = {"a": numbers(0, 2), "b": numbers(0, 2, "y")}
    with pytest.raises(ValueError, match=r"(?s)\['b'\] no record in an epoch of 20.*b .*0\.00 %"):
        MixtureSource(sources, weights, records=20)
    with caplog.at_level(logging.WARNING):
        mixture = MixtureSource(sources, weights, records=20, on_starved="warn")
    assert "['b'] no record" in caplog.text
    assert {mixture.place(i)[0] for i in range(20)} == {"a"}
    assert "y" in mixture.optional


def test_fingerprint_changes_with_what_decides_the_records():
    a, b, c = numbers(0, 4), numbers(9, 4), numbers(10, 4)
    made = [
        MixtureSource({"a": a, "b": b}, {"a": 1, "b": 1}),
        MixtureSource({"b": b, "a": a}, {"a": 1, "b": 1}),
        MixtureSource({"a": a, "b": b}, {"a": 1, "b": 2}),
        MixtureSource({"a": a, "b": c}, {"a": 1, "b": 1}),
        MixtureSource({"a": a, "c": b}, {"a": 1, "c": 1}),
        MixtureSource({"a": a, "b": b}, {"a": 1, "b": 1}, records=10),
    ]
    assert len({mixture.fingerprint() for mixture in made}) == len(made)
    again = MixtureSource({"a": numbers(0, 4), "b": b}, {"a": 2, "b": 2})
    assert again.fingerprint() == made[0].fingerprint()


class Broken(DataSourceModule):
    """Two records, the second of which cannot be read, and a lost part."""

    faults = [Fault("b.tar", reason="cut off")]

    def __init__(self):
        super().__init__(DataraxModuleConfig())

    def __len__(self):
        return 2

    def __getitem__(self, index):
        if index == 1:
            raise RecordError(Fault("b.tar", "1", 1, "x", "bad"))
        return Element({"x": np.int64(7)}, metadata={"key": "0"})

    def element_spec(self):
        return {"x": jax.ShapeDtypeStruct((), np.int64)}


def test_errors_lost_parts_and_metadata_come_through():
    mixture = MixtureSource({"good": numbers(0, 2), "broken": Broken()}, {"good": 1, "broken": 1})
    assert mixture.faults == Broken.faults
    places = {mixture.place(i): i for i in range(len(mixture))}
    with pytest.raises(RecordError, match=r"b\.tar, record '1', x: bad"):
        mixture[places["broken", 1]]
    assert mixture[places["broken", 0]].metadata == {"key": "0", "source": "broken"}
    assert mixture.optional == ("x",)  # a source that does not say may lack any field
