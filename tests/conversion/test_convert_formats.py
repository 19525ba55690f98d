"""What the shards of each format hold, read without our readers."""

import collections
import itertools
import json
import tarfile

import msgpack
import numpy as np
import pyarrow as pa
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from conversion_samples import SAMPLES, contents, members, tar_file
from pyarrow import ipc, parquet

from datarax.conversion import FORMATS, convert_shards
from datarax.conversion.distinct_keys import distinct_keys
from datarax.conversion.plain_values import same
from datarax.conversion.write_array_record import write_array_record
from datarax.conversion.write_tables import Columns, write_arrow, write_parquet
from datarax.conversion.write_tar import write_tar
from datarax.sources.open import open_shards
from datarax.sources.record import RawRecord

MEMBERS = [(f"{key}.{part}", data) for key, parts in SAMPLES for part, data in parts.items()]


@pytest.fixture
def source(tmp_path):
    tar_file(tmp_path / "in" / "b.tar", SAMPLES[10:])
    tar_file(tmp_path / "in" / "a.tar", SAMPLES[:10])
    return tmp_path / "in"


def read_array_record(path):
    reader = ArrayRecordReader(str(path))
    maps = [msgpack.unpackb(reader.read([row])[0]) for row in range(reader.num_records())]
    reader.close()
    return maps


def rows_of(path):
    """Maps of a shard, in order, without what is null."""
    if path.suffix == ".parquet":
        rows = parquet.read_table(path, page_checksum_verification=True).to_pylist()
    elif path.suffix == ".arrow":
        with ipc.open_file(path) as reader:
            rows = reader.read_all().to_pylist()
    else:
        return read_array_record(path)
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def record(key="k", **parts):
    return RawRecord(key, parts)


def table(tmp_path, *records):
    columns = Columns()
    for each in records:
        columns.add(each)
    write_parquet(tmp_path / "t.parquet", records, schema=columns.schema())
    return parquet.read_table(tmp_path / "t.parquet")


def test_a_tar_has_the_members_of_the_source_in_order_and_nothing_that_differs(source, tmp_path):
    done = convert_shards(str(source), tmp_path / "out", shard_records=10)
    shards = sorted((tmp_path / "out").glob("*.tar"))
    assert done == f"25 records in 3 shards in {tmp_path / 'out'}"
    assert [path.name for path in shards] == [f"data-00000{n}.tar" for n in range(3)]
    assert [member for path in shards for member in members(path)] == MEMBERS
    assert len(members(shards[2])) == sum(len(parts) for _, parts in SAMPLES[20:])
    with tarfile.open(shards[0]) as tar:
        told = {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode, m.type) for m in tar}
    assert told == {(0, 0, 0, "", "", 0o644, tarfile.REGTYPE)}


@pytest.mark.parametrize("format", FORMATS[1:])
def test_a_table_and_an_array_record_have_the_records_of_the_source(source, tmp_path, format):
    convert_shards(str(source), tmp_path / "out", format=format, shard_records=10)
    shards = sorted((tmp_path / "out").glob(f"data-*.{format}"))
    expected = [{"__key__": key, **parts} for key, parts in SAMPLES]
    assert [row for path in shards for row in rows_of(path)] == expected
    assert len(shards) == 3


def test_through_all_formats_and_back_is_the_identity(source, tmp_path):
    steps = [source, *(tmp_path / name for name in FORMATS), tmp_path / "back"]
    for (read, written), format in zip(itertools.pairwise(steps), [*FORMATS, "tar"], strict=True):
        convert_shards(str(read), written, format=format, shard_records=7)
    shards = sorted((tmp_path / "back").glob("*.tar"))
    assert [member for path in shards for member in members(path)] == MEMBERS


@pytest.mark.parametrize("format", FORMATS)
def test_two_conversions_are_byte_for_byte_the_same(source, tmp_path, format):
    for name in ("one", "two"):
        convert_shards(str(source), tmp_path / name, format=format, shard_records=10)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_every_shard_has_the_columns_that_any_record_has(tmp_path):
    records = [("a", {"txt": b"1"}), ("b", {"png": b"2"})]
    tar_file(tmp_path / "in.tar", records)
    convert_shards(str(tmp_path / "in.tar"), tmp_path / "o", format="parquet", shard_records=1)
    schemas = [parquet.read_schema(path) for path in sorted((tmp_path / "o").glob("*.parquet"))]
    binary = pa.binary()
    assert schemas == [pa.schema({"__key__": pa.string(), "txt": binary, "png": binary})] * 2
    assert schemas[0].metadata is None


def test_columns_have_the_types_of_the_values(tmp_path):
    made = table(
        tmp_path,
        record("a", b=b"", s="t", t=True, i=1, f=0.5, n=None, l=[], v=np.float32([1, 2])),
        record("b", l=[{"x": 1}], d={"a": 1}, v=np.float32([])),
        record("c", l=[{"y": [None, 2.5]}], d={"b": None}, extra=np.zeros((2, 1)).tolist()),
    )
    item = pa.struct({"x": pa.int64(), "y": pa.list_(pa.float64())})
    types = [
        *(pa.string(), pa.binary(), pa.string(), pa.bool_(), pa.int64(), pa.float64(), pa.null()),
        *(pa.list_(item), pa.list_(pa.float32())),
        *(pa.struct({"a": pa.int64(), "b": pa.null()}), pa.list_(pa.list_(pa.float64()))),
    ]
    names = ["__key__", *"bstifnlv", "d", "extra"]
    assert (made.schema.names, made.schema.types) == (names, types)
    assert made["l"].to_pylist() == [[], [{"x": 1, "y": None}], [{"x": None, "y": [None, 2.5]}]]
    assert made["i"].to_pylist() == [1, None, None]


@pytest.mark.parametrize("write", [write_parquet, write_arrow])
def test_batches_hold_at_most_128_records_or_32_mib(tmp_path, write):
    large = bytes(9 * 2**20)
    records = [record(x=b"") for _ in range(300)] + [record(x=large) for _ in range(4)]
    columns = Columns()
    for each in records:
        columns.add(each)
    write(tmp_path / "x", iter(records), schema=columns.schema())
    if write is write_parquet:
        file = parquet.ParquetFile(tmp_path / "x")
        counts = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    else:
        with ipc.open_file(tmp_path / "x") as reader:
            counts = [reader.get_batch(n).num_rows for n in range(reader.num_record_batches)]
    assert counts == [128, 128, 44 + 3, 1]


@pytest.mark.parametrize(
    ("records", "match"),
    [
        (
            [record("a", x=1), record("b", x="1")],
            "'b', part 'x': text, but int in record 'a': mixed types, which arrayrecord takes",
        ),
        ([record("a", x=1), record("b", x=True)], "bool, but int"),
        ([record("a", x=1), record("b", x=1.5)], "float, but int"),
        ([record("a", x=[1]), record("b", x=["1"])], "'b', part 'x': mixed types"),
        ([record("a", x=[1]), record("b", x={"y": 1})], "'b', part 'x': mixed types"),
        ([record("b", x=1j)], "'b', part 'x': no table holds a complex"),
        ([record("b", x=2**63)], "'b', part 'x': does not fit int64"),
        ([record("b", x="\ud800")], "'b', part 'x': does not fit string"),
        ([record("\ud800")], "part '__key__': does not fit string"),
        ([record("b", __key__="c")], "'b', part '__key__': the name is taken"),
        ([record("a", x={1: 2})], "'a', part 'x'"),
        ([record("a", x={})], "t.parquet cannot be written: .*x"),
    ],
)
def test_what_does_not_fit_a_column_is_refused(tmp_path, records, match):
    with pytest.raises(ValueError, match=match):
        table(tmp_path, *records)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("known", "value"),
    [({"a": 1}, {"b": 1}), ({"a": [{"b": 1}]}, {"a": [{"b": 1, "c": 2}]}), ([[1]], [[1], None, 2])],
)
def test_what_a_column_would_lose_is_refused(tmp_path, known, value):
    columns = Columns()
    columns.add(record("a", x=known))
    with pytest.raises(ValueError, match="'b', part 'x': does not fit"):
        write_arrow(tmp_path / "t", [record("b", x=value)], schema=columns.schema())


@pytest.mark.parametrize(
    ("value", "kept", "expected"),
    [
        ([1.5, float("nan")], [1.5, float("nan")], True),
        ([1.5], [1.25], False),
        ([1], [1.0], True),
        ([True], [1], False),
        ([1], [True], False),
        ({"a": None}, {}, True),
        ({}, {"a": 0}, False),
        ([1], [1, 2], False),
        ("a", b"a", False),
    ],
)
def test_same(value, kept, expected):
    assert same(value, kept) is expected


def test_a_changed_byte_of_a_parquet_page_is_found(tmp_path):
    table(tmp_path, record(x=np.random.default_rng(0).bytes(1000)))
    path = tmp_path / "t.parquet"
    column = parquet.read_metadata(path).row_group(0).column(1)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(OSError, match="CRC"):
        parquet.read_table(path, page_checksum_verification=True)


def test_an_array_record_is_written_for_random_access(tmp_path):
    value = record("ä", b=b"\xff", n=None, a=np.float32([0.5]), d={"x": [1, True, "t"]})
    write_array_record(tmp_path / "x", [value, record("b")])
    reader = ArrayRecordReader(str(tmp_path / "x"))
    assert "group_size:1," in reader.writer_options_string()
    reader.close()
    first = {"__key__": "ä", "b": b"\xff", "n": None, "a": [0.5], "d": {"x": [1, True, "t"]}}
    assert read_array_record(tmp_path / "x") == [first, {"__key__": "b"}]


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        ({"__key__": "c"}, "'k', part '__key__': the name is taken"),
        ({"x": 2**64}, "'k' cannot be msgpack"),
        ({"x": 1j}, "'k' cannot be msgpack"),
        ({"x": "\ud800"}, "'k' cannot be msgpack"),
    ],
)
def test_what_msgpack_cannot_hold_is_refused(tmp_path, parts, match):
    with pytest.raises(ValueError, match=match):
        write_array_record(tmp_path / "x", [RawRecord("k", parts)])
    assert list(tmp_path.iterdir()) == []


def test_values_that_are_not_bytes_become_members(tmp_path):
    value = record(t="größe", n=None, a=np.float32([1, 0.5]), d={"x": [1, None]}, i=7)
    write_tar(tmp_path / "x.tar", [value])
    names = [("k.t", "größe".encode()), ("k.a.json", b"[1.0, 0.5]")]
    assert members(tmp_path / "x.tar")[:2] == names
    assert [json.loads(data) for _, data in members(tmp_path / "x.tar")[2:]] == [
        {"x": [1, None]},
        7,
    ]


@pytest.mark.parametrize(
    "key",
    ["", ".", "..", "/a", "a/../b", "a.b", "a/b.c", ".a", "./a", "a//b", "a/", "\0", "\ud800"],
)
def test_a_key_that_a_tar_would_change_is_refused(tmp_path, key):
    with pytest.raises(ValueError, match=f"record {key!r}".replace("\\", "\\\\")):
        write_tar(tmp_path / "x.tar", [record(key, txt=b"")])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["", "a/b", "/", "png/", "x\0"])
def test_a_part_that_a_tar_would_change_is_refused(tmp_path, part):
    with pytest.raises(ValueError, match=r"record 'k', part .* or choose parquet, arrow"):
        write_tar(tmp_path / "x.tar", [RawRecord("k", {part: b""})])


@pytest.mark.parametrize(
    ("records", "match"),
    [
        (
            [record("a", x=b""), record("a", y=b"")],
            "'a' comes twice in x.tar: in a tar both would be one record",
        ),
        ([record("a", x=b"", X=b"")], "'a', part 'X': .* suffix 'x' twice"),
        ([RawRecord("a", {"x": 1, "x.json": b"2"})], "suffix 'x.json' twice"),
        ([record("a", x=None)], "'a' has no parts"),
        ([record("a", x=[b"1"])], "'a', part 'x': cannot be JSON"),
        ([record("a", x=float("nan"))], "'a', part 'x': cannot be JSON"),
        ([record("a", x="\ud800")], "'a', part 'x': cannot be JSON or text"),
    ],
)
def test_a_record_that_a_tar_cannot_hold_is_refused(tmp_path, records, match):
    with pytest.raises(ValueError, match=match):
        write_tar(tmp_path / "x.tar", records)
    assert list(tmp_path.iterdir()) == []


def plain_parquet(path, size):
    """As Hugging Face writes them: without keys, so that each counts its rows from 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = pa.table({"txt": [f"{path.stem}-{row}" for row in range(size)]})
    parquet.write_table(rows, path)


def test_shards_that_count_from_0_each_become_tars_in_order_without_a_loss(tmp_path):
    sizes = {"a-0": 12, "b.x": 3, "c": 7}
    for name, size in sizes.items():
        plain_parquet(tmp_path / "in" / f"{name}.parquet", size)
    texts = [f"{name}-{row}".encode() for name, size in sizes.items() for row in range(size)]
    done = convert_shards(tmp_path / "in", tmp_path / "out", shard_records=10)
    assert "22 records in 3 shards" in done
    assert "3 keys were in the same tar before" in done
    assert done.endswith("of those of " + str(tmp_path / "in" / "c.parquet"))
    made = [members(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    assert [data for shard in made for _, data in shard] == texts
    keys = [[name.removesuffix(".txt") for name, _ in shard] for shard in made]
    assert keys[0] == [str(row) for row in range(10)]
    assert keys[1] == ["10", "11", "0", "1", "2", "c/0", "c/1", "c/2", "3", "4"]
    assert keys[2] == ["5", "6"]
    shards = open_shards(tmp_path / "out")
    read = [(shard.read(row).key) for shard in shards for row in range(len(shard))]
    assert read == [key for shard in keys for key in shard]


def test_a_tar_that_lacks_is_made_again_with_the_same_keys(tmp_path):
    for name in ("one/s.tar", "two/s.tar", "three/s.tar"):
        tar_file(tmp_path / name, [(f"{n:04}", {"txt": name.encode()}) for n in range(8)])
    given = [str(tmp_path / name / "s.tar") for name in ("one", "two", "three")]
    convert_shards(given, tmp_path / "out", shard_records=10)
    whole = contents(tmp_path / "out")
    for number in range(3):
        (tmp_path / "out" / f"data-00000{number}.tar").unlink()
        convert_shards(given, tmp_path / "out", shard_records=10)
        assert contents(tmp_path / "out") == whole
    names = [name for name, _ in members(tmp_path / "out" / "data-000000.tar")]
    assert names[-2:] == ["s/0000.txt", "s/0001.txt"]


@pytest.mark.parametrize("format", FORMATS[1:])
def test_other_formats_keep_keys_that_repeat(tmp_path, format):
    for name in "ab":
        plain_parquet(tmp_path / "in" / f"{name}.parquet", 3)
    convert_shards(tmp_path / "in", tmp_path / "out", format=format)
    rows = rows_of(tmp_path / "out" / f"data-000000.{format}")
    assert [row["__key__"] for row in rows] == ["0", "1", "2"] * 2


@pytest.mark.parametrize(
    ("shard", "key"),
    [
        ("s3://x/b.c-1.TAR.GZ", "b-c-1/0"),
        ("in/größe.arrow", "größe/0"),
        ("folder/", "folder/0"),
        ("\udcff.parquet", "-/0"),
        ("in/.tar", "-/0"),
    ],
)
def test_a_key_that_comes_again_has_the_name_of_its_shard_in_front(tmp_path, shard, key):
    same = record("0", txt=b"")
    made = [*distinct_keys([("a", same), (shard, same)])]
    assert [each.key for each in made] == ["0", key]
    write_tar(tmp_path / "x.tar", made)


def test_keys_that_are_taken_by_longer_ones_differ_too():
    keys = ["0", "0", "b/0", "b/0-2", "0", "0"]
    changed = collections.Counter()
    made = distinct_keys((("b.tar", record(key)) for key in keys), changed=changed)
    assert [each.key for each in made] == ["0", "b/0", "b/b/0", "b/0-2", "b/0-3", "b/0-4"]
    assert changed == {"b.tar": 4}
