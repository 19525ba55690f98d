"""Cells of every type of Arrow, as parts: written by pyarrow, beside what was put in."""

import datetime as dt
import decimal
import os

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from datarax.sources.arrow import ArrowShard
from datarax.sources.limits import Limits
from datarax.sources.parquet import ParquetShard
from datarax.sources.record import RecordError

UTC = dt.UTC
STRUCT = pa.struct([("a", pa.int8()), ("b", pa.struct([("c", pa.string())]))])
FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

CELLS = {
    "binary": (pa.binary(), b"\xff\0", b"\xff\0"),
    "large_binary": (pa.large_binary(), b"a", b"a"),
    "binary_view": (pa.binary_view(), b"a" * 40, b"a" * 40),
    "fixed_binary": (pa.binary(3), b"abc", b"abc"),
    "string": (pa.string(), "é", "é"),
    "large_string": (pa.large_string(), "é", "é"),
    "string_view": (pa.string_view(), "long " * 9, "long " * 9),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), "é", "é"),
    "bool": (pa.bool_(), True, True),
    "uint64": (pa.uint64(), 2**64 - 1, 2**64 - 1),
    "float16": (pa.float16(), np.float16(1.5), 1.5),
    "float64": (pa.float64(), 0.1, 0.1),
    "null": (pa.null(), None, None),
    "decimal": (pa.decimal128(20, 2), decimal.Decimal("-12345678901234567.10"), None),
    "date": (pa.date32(), dt.date(2024, 2, 29), "2024-02-29"),
    "time": (pa.time64("us"), dt.time(1, 2, 3, 4), "01:02:03.000004"),
    "second": (pa.timestamp("ms"), dt.datetime(2024, 2, 29, 1), "2024-02-29T01:00:00.000"),
    "nanosecond": (pa.timestamp("ns"), 1, "1970-01-01T00:00:00.000000001"),
    "zone": (
        pa.timestamp("ms", "Europe/Paris"),
        dt.datetime(2024, 7, 1, 12, tzinfo=UTC),
        "2024-07-01T12:00:00.000Z",
    ),
    "span": (pa.duration("ms"), dt.timedelta(minutes=1, milliseconds=5), 60.005),
    "list": (pa.list_(pa.string()), ["a", None, ""], ["a", None, ""]),
    "large_list": (pa.large_list(pa.string()), ["a"], ["a"]),
    "no_list": (pa.list_(pa.string()), [], []),
    "null_number": (pa.list_(pa.int8()), [1, None], [1, None]),
    "struct": (STRUCT, {"a": 1, "b": {"c": "é"}}, {"a": 1, "b": {"c": "é"}}),
    "null_inside": (STRUCT, {"a": None, "b": None}, {"a": None, "b": None}),
    "map": (pa.map_(pa.string(), pa.int8()), [("a", 1)], {"a": 1}),
    "file": (FILE, {"bytes": b"x", "path": "../nowhere"}, b"x"),
    "no_file": (FILE, {"bytes": None, "path": None}, None),
    "files": (pa.list_(FILE), [{"bytes": b"x", "path": None}, None], [b"x", None]),
    "only_bytes": (pa.struct([("bytes", pa.binary())]), {"bytes": b"x"}, {"bytes": b"x"}),
}
CELLS["decimal"] = (*CELLS["decimal"][:2], "-12345678901234567.10")
ARRAYS = {
    "list": (pa.list_(pa.float32()), np.float32),
    "large_list": (pa.large_list(pa.int64()), np.int64),
    "fixed_list": (pa.list_(pa.float32(), 3), np.float32),
    "bools": (pa.list_(pa.bool_()), np.bool_),
    "halves": (pa.list_(pa.float16()), np.float16),
}


def write_arrow(table, path):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def write_parquet(table, path):
    parquet.write_table(table, path, write_page_checksum=True)


both = pytest.mark.parametrize(
    ("write", "open_shard"),
    [(write_parquet, ParquetShard), (write_arrow, ArrowShard)],
    ids=["parquet", "arrow"],
)


def shard_of(tmp_path, write, open_shard, columns, **options):
    path = tmp_path / "x"
    write(pa.table(columns), path)
    return open_shard(path, **options)


@both
def test_a_cell_of_every_type(write, open_shard, tmp_path):
    columns = {name: pa.array([value, None], kind) for name, (kind, value, _) in CELLS.items()}
    shard = shard_of(tmp_path, write, open_shard, columns)
    assert shard.faults == ()
    found, nothing = (dict(shard.read(row).parts) for row in range(2))
    assert found == {name: part for name, (_, _, part) in CELLS.items()}
    assert {name: type(part) for name, part in found.items()} == {
        name: type(part) for name, (_, _, part) in CELLS.items()
    }
    assert set(nothing.values()) == {None}
    assert list(found) == list(CELLS)


@both
@pytest.mark.parametrize("name", ARRAYS)
def test_lists_of_numbers_are_arrays(name, write, open_shard, tmp_path):
    kind, dtype = ARRAYS[name]
    values = [np.array([row, 1, 0], dtype) for row in range(3)]
    shard = shard_of(tmp_path, write, open_shard, {"x": pa.array(map(list, values), kind)})
    for row, value in enumerate(values):
        found = shard.read(row).parts["x"]
        assert isinstance(found, np.ndarray)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, value)


@both
def test_tensors_have_their_shape(write, open_shard, tmp_path):
    values = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(values)
    shard = shard_of(tmp_path, write, open_shard, {"x": column})
    np.testing.assert_array_equal(shard.read(1).parts["x"], values[1])


@both
def test_text_that_is_no_utf8_is_bytes_and_hurts_no_other_row(write, open_shard, tmp_path):
    offsets = pa.array([0, 1, 2, 3], pa.int32())
    bad = pa.Array.from_buffers(
        pa.string(), 3, [None, offsets.buffers()[1], pa.py_buffer(b"a\xffc")]
    )
    nested = pa.StructArray.from_arrays([bad], ["in"])
    dictionary = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2], pa.int8()), bad)
    columns = {"__key__": bad, "x": bad, "nested": nested}
    if write is write_arrow:  # Parquet refuses to write it
        columns["dictionary"] = dictionary
    shard = shard_of(tmp_path, write, open_shard, columns)
    assert [shard.read(row).key for row in range(3)] == ["a", "\\xff", "c"]
    for row, value in enumerate(["a", b"\xff", "c"]):
        parts = dict(shard.read(row).parts)
        assert parts.pop("nested") == {"in": value}
        assert set(parts.values()) == {value}


@both
def test_keys(write, open_shard, tmp_path):
    shard = shard_of(tmp_path, write, open_shard, {"__key__": pa.array([7, None]), "x": [1, 2]})
    assert [shard.read(row).key for row in range(2)] == ["7", "1"]
    assert dict(shard.read(0).parts) == {"x": 1}
    shard = shard_of(tmp_path, write, open_shard, {"__key__": [0.5], "x": [1]})
    with pytest.raises(RecordError, match="is a float, and no key") as caught:
        shard.read(0)
    assert caught.value.fault.field == "__key__"


@both
def test_a_cell_beyond_the_limit_names_its_record_and_column(write, open_shard, tmp_path):
    large = {
        "bytes": pa.array([b"a", b"a" * 200]),
        "text": pa.array(["a", "a" * 200]),
        "numbers": pa.array([[1], [1] * 200]),
        "texts": pa.array([["a"], ["a"] * 200]),
        "map": pa.array([[(1, 1)], [(n, 1) for n in range(99)]], pa.map_(pa.int8(), pa.int8())),
    }
    for name, column in large.items():
        columns = {"__key__": ["k0", "k1"], name: column}
        limits = Limits(member_bytes=100)
        shard = shard_of(tmp_path, write, open_shard, columns, limits=limits)
        assert shard.read(0).key == "k0"
        with pytest.raises(
            RecordError, match=r"has \d+ bytes, at most 100 \(Limits.memb"
        ) as caught:
            shard.read(1)
        fault = caught.value.fault
        assert (fault.key, fault.row, fault.field) == ("k1", 1, name)


def test_what_cannot_be_a_value_is_an_error_of_its_record(tmp_path):
    def view(values, kind):
        return pa.array(values, pa.int64()).view(kind)

    columns = {
        "time": view([0, 2**62], pa.timestamp("s")),
        "map": pa.array([[("a", 1)], [("b", 1), ("b", 2)]], pa.map_(pa.string(), pa.int8())),
    }
    for name, column in columns.items():
        shard = shard_of(tmp_path, write_arrow, ArrowShard, {name: column})
        shard.read(0)
        with pytest.raises(RecordError, match=r"value out of range|has a name twice") as caught:
            shard.read(1)
        assert caught.value.fault.field == name


def test_columns_that_are_not_read_are_left_out_and_said(tmp_path):
    union = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2])] * 2)
    months = pa.array([(1, 2, 3)] * 2, pa.month_day_nano_interval())
    columns = {"x": [1, 2], "union": union, "months": pa.array(months), "in": pa.array([[1], [2]])}
    columns["in"] = pa.ListArray.from_arrays([0, 1, 2], months)
    shard = shard_of(tmp_path, write_arrow, ArrowShard, columns)
    assert [dict(shard.read(row).parts) for row in range(2)] == [{"x": 1}, {"x": 2}]
    assert [fault.field for fault in shard.faults] == ["union", "months", "in"]
    assert all("left out: the type" in fault.reason for fault in shard.faults)


@both
def test_two_columns_of_one_name_are_refused(write, open_shard, tmp_path):
    path = tmp_path / "x"
    write(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), path)
    shard = open_shard(path)
    assert len(shard) == 0
    assert "two columns have the name 'a'" in shard.faults[0].reason


@both
def test_files_that_cells_name_lie_beside_the_shard(write, open_shard, tmp_path):
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "images" / "a").write_bytes(b"inside" * 4)
    (folder / "within").symlink_to("images/a")
    (folder / "out").symlink_to("../secret")
    (folder / "outer").symlink_to("..")
    os.mkfifo(folder / "pipe")
    good = ["images/a", "within", "images/../images/a"]
    bad = {
        str(tmp_path / "secret"): "leads out",
        str(folder / "images" / "a"): "leads out",  # absolute
        "../secret": "leads out",
        "images/../../secret": "leads out",
        "out": "leads out",
        "outer/secret": "leads out",
        "lacks": "there is no file",
        "images": "there is no file",
        "": "there is no file",
        "pipe": "there is no file",
        "a\0b": "is no path",
        "x" * 5000: "there is no file",
        "https://example.org/a": "is a URL",
    }
    cells = [{"bytes": None, "path": path} for path in [*good, *bad]]
    path = folder / "x"
    write(pa.table({"image": pa.array(cells, FILE)}), path)
    shard = open_shard(path)
    for row in range(len(good)):
        assert shard.read(row).parts["image"] == b"inside" * 4
    for row, reason in enumerate(bad.values(), len(good)):
        with pytest.raises(RecordError, match=reason) as caught:
            shard.read(row)
        assert caught.value.fault.field == "image"
    with pytest.raises(RecordError, match="has 24 bytes, at most 23"):
        open_shard(path, limits=Limits(member_bytes=23)).read(0)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@both
def test_no_pickle_of_a_type_is_loaded(write, open_shard, tmp_path, monkeypatch):
    import pickle

    monkeypatch.chdir(tmp_path)
    metadata = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(Evil()),
    }
    field = pa.field("x", pa.int8(), metadata=metadata)
    path = tmp_path / "x"
    write(pa.table([pa.array([1], pa.int8())], schema=pa.schema([field])), path)
    assert dict(open_shard(path).read(0).parts) == {"x": 1}
    assert not (tmp_path / "executed").exists()
