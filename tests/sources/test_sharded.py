import gc
import weakref

import numpy as np
import pytest

from datarax.core.element_batch import Batch
from datarax.sources.fields import Fields
from datarax.sources.limits import Limits
from datarax.sources.record import Fault, Lost, RawRecord, RecordError, RecordSkipped
from datarax.sources.sharded import ShardedSource, fields_of

MAPPING = {
    "n": {"from": "n", "decode": "number", "dtype": "int32"},
    "name": {"from": "txt", "decode": "text", "length": 8, "missing": "mask"},
    "kept": {"from": "kept", "decode": "number", "missing": "skip"},
}


class Numbered:
    """Records `start` to `stop`, which all say their number in every part."""

    def __init__(self, start, stop, *, faults=()):
        self.start, self.stop, self.faults = start, stop, faults
        self.name = f"{start}-{stop}"

    def __len__(self):
        return self.stop - self.start

    def read(self, row):
        n = self.start + row
        if n == 6:
            raise RecordError(Fault(self.name, "6", row, reason="cut"))
        if n == 7:
            raise OSError("the disk is gone")
        text = b"\xff" if n == 4 else f"#{n}".encode()
        kept = None if n == 5 else float(n)
        return RawRecord(str(n), {"n": n, "kept": kept} | ({"txt": text} if n != 3 else {}))

    def identity(self):
        return self.name


def source(**options):
    return ShardedSource(
        [Numbered(0, 3), Numbered(3, 3), Numbered(3, 8)],
        **({"fields": Fields.from_mapping(MAPPING)} | options),
    )


def test_records_are_those_of_the_shards_in_order():
    made = source()
    assert len(made) == 8
    for n in (0, 1, 2):
        record = made[n]
        assert record.data["n"] == n == record.data["kept"]
        assert bytes(record.data["name"][record.data["name_mask"]]) == f"#{n}".encode()
        assert record.metadata == {"key": str(n), "shard": "0-3", "row": n}
    assert made[-8].data["n"] == 0
    assert made[3].metadata == {"key": "3", "shard": "3-8", "row": 0}


def test_a_masked_field_that_lacks_becomes_a_presence_entry():
    made = source()
    assert "name" not in made[3].data
    batch = Batch.from_elements(
        [made[2], made[3]], spec=made.element_spec(), optional=made.optional
    )
    assert batch.presence["name"].tolist() == [True, False]
    assert set(batch.presence) == {"name", "name_mask"}


def test_errors_name_shard_record_row_and_field():
    with pytest.raises(RecordError, match="3-8, record '4', name: text is not valid UTF-8") as bad:
        source()[4]
    assert bad.value.fault == Fault("3-8", "4", 1, "name", "text is not valid UTF-8 at byte 0")
    assert not isinstance(bad.value, RecordSkipped)
    with pytest.raises(RecordSkipped, match="3-8, record '5', kept: the record lacks kept"):
        source()[5]
    with pytest.raises(RecordError, match="3-8, record '6': cut"):
        source()[6]
    with pytest.raises(OSError, match="the disk is gone"):
        source()[7]


def columns_of(made, count, stride=1):
    """Arrays of whatever was there before."""
    return {
        name: np.full((count * stride, *kind.shape), 85, kind.dtype)[::stride]
        for name, kind in made.spec().items()
    }


def one(made, number):
    try:
        return made[number]
    except RecordError as error:
        return Lost.of(error)


@pytest.mark.parametrize("stride", [1, 2])
def test_many_at_once_are_what_one_after_another_are(stride):
    made = source()
    numbers = [5, 2, 4, 2, 3, -2, 0, 1]
    columns = columns_of(made.fields, len(numbers), stride)
    metadata, lacking, lost = made.read_into(numbers, columns)
    assert len(metadata) == len(numbers)
    for row, number in enumerate(numbers):
        there = {name: column[row] for name, column in columns.items()}
        expected = one(made, number)
        if isinstance(expected, Lost):
            assert lost.pop(row) == expected
            continue
        assert metadata[row] == expected.metadata
        assert lacking.pop(row, []) == [name for name in columns if name not in expected.data]
        for name, value in expected.data.items():
            np.testing.assert_array_equal(there[name], value)
    assert lacking == lost == {}
    for column in columns.values():  # nothing but the rows is written
        between = column.base[1::2] if stride == 2 else column[:0]
        assert (between == np.array(85).astype(column.dtype)).all()
    for index in (8, -9):
        with pytest.raises(IndexError, match="of a source of 8"):
            made.read_into([0, index], columns)
    with pytest.raises(OSError, match="the disk is gone"):
        made.read_into([0, 7], columns)


@pytest.mark.parametrize("change", [lambda x: x.astype(np.float64), lambda x: x[:, :1]])
def test_arrays_that_do_not_fit_are_refused_not_filled_with_anything(change):
    made = source()
    columns = columns_of(made.fields, 1)
    made.read_into([0], columns)
    for name in ("name", "name_mask"):
        with pytest.raises(ValueError, match=r"its decoder's spec says"):
            made.read_into([0], columns | {name: np.ascontiguousarray(change(columns[name]))})


def test_a_lost_record_does_not_keep_its_columns_in_memory():
    made = source()
    gc.collect()
    gc.disable()
    try:
        columns = columns_of(made.fields, 3)
        reading = made.read_into([4, 5, 6], columns)
        kept = [weakref.ref(column) for column in columns.values()]
        del columns
        assert [ref() for ref in kept] == [None] * len(kept)
        assert list(reading.lost) == [0, 1, 2]
    finally:
        gc.enable()


@pytest.mark.parametrize("index", [8, -9])
def test_there_is_no_record_beyond(index):
    with pytest.raises(IndexError, match="of a source of 8"):
        source()[index]


def test_no_records_are_refused_with_what_is_lost():
    fault = Fault("3-3", reason="cut")
    with pytest.raises(ValueError, match="no records in 3-3, 4-4\n  3-3: cut"):
        ShardedSource([Numbered(3, 3, faults=[fault]), Numbered(4, 4)])
    with pytest.raises(ValueError, match="no records in no files"):
        ShardedSource([])


def test_faults_are_those_of_the_shards():
    fault = Fault("0-1", reason="cut")
    assert ShardedSource([Numbered(0, 1, faults=[fault])], fields=fields_of(MAPPING)).faults == [
        fault
    ]


def test_the_fingerprint_changes_with_shards_and_fields():
    fewer = {name: MAPPING[name] for name in ("n", "name")}
    prints = {
        source().fingerprint(),
        source(fields=fields_of(fewer)).fingerprint(),
        ShardedSource([Numbered(0, 3)], fields=fields_of(MAPPING)).fingerprint(),
    }
    assert len(prints) == 3
    assert source().fingerprint() in prints


def test_fields_are_inferred_where_they_are_not_given():
    made = ShardedSource([Numbered(0, 7)])
    assert list(made.element_spec()) == ["n", "kept", "caption", "caption_mask"]
    assert made[2].data["n"] == 2
    np.testing.assert_array_equal(made[2].data["caption"][:3], [35, 50, 0])


def test_limits_replace_those_of_the_fields():
    tight = Limits(member_bytes=1)
    assert source().fields.limits == Limits()
    for made in (source(limits=tight), ShardedSource([Numbered(0, 3)], limits=tight)):
        assert made.fields.limits == tight
        with pytest.raises(RecordError, match=r"txt has 2 bytes, at most 1 \(Limits"):
            made[0]


def test_fields_are_taken_as_they_are_or_from_a_mapping():
    fields = Fields.from_mapping(MAPPING)
    assert fields_of(fields) is fields
    assert fields_of(MAPPING) == fields
    assert fields_of(None) is None
