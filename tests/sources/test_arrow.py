"""Arrow files and streams: whole batches before a cut, compression, dictionaries, damage."""

import io
import os
import pickle
import struct

import pyarrow as pa
import pytest
from signed_rows import IN_GROUP, ROWS, is_right, read_all, sign, write_arrow, write_arrow_file

from datarax.sources.arrow import ArrowShard, ArrowSource
from datarax.sources.block_cache import BlockCache
from datarax.sources.limits import Limits
from datarax.sources.record import RecordError

WRITERS = {"stream": write_arrow, "file": write_arrow_file}
each = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
END = b"\xff\xff\xff\xff\0\0\0\0"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.arrow"


def messages(path, start):
    """Where the messages of a file end, as pyarrow reads them, and the mark of the end begins."""
    source = pa.BufferReader(path.read_bytes())
    source.seek(start)
    ends = []
    while True:
        try:
            pa.ipc.read_message(source)
        except EOFError:
            return ends
        ends.append(source.tell())


@each
@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zstd"}, {"compression": "lz4"}, {"use_legacy_format": True}],
    ids=str,
)
def test_what_pyarrow_writes_is_read(write, options, path):
    write(path, **options)
    cache = BlockCache()
    shard = ArrowShard(path, cache=cache)
    assert (len(shard), shard.faults, cache.made) == (ROWS, (), 0)
    assert all(is_right(found, row) for row, found in enumerate(read_all(shard)))
    assert cache.made == ROWS // IN_GROUP


@each
def test_what_is_cut_has_the_whole_batches_before_the_cut(write, path):
    write(path)
    content = path.read_bytes()
    schema, *ends = messages(path, 8 if write is write_arrow_file else 0)
    assert len(ends) == ROWS // IN_GROUP
    for cut in [schema - 1, schema, *(end + by for end in ends for by in (-1, 0, 1, 4))]:
        path.write_bytes(content[:cut])
        shard = ArrowShard(path)
        found = read_all(shard)
        assert len(found) == IN_GROUP * sum(end <= cut for end in ends)
        assert all(is_right(parts, row) for row, parts in enumerate(found))
        assert len(shard.faults) == 1


@each
def test_what_stands_behind_the_end_is_a_fault(write, path):
    write(path)
    path.write_bytes(path.read_bytes() + b"\0" * 8)
    shard = ArrowShard(path)
    assert all(is_right(found, row) for row, found in enumerate(read_all(shard)))
    assert len(shard.faults) == 1


def test_a_file_whose_messages_have_no_end_mark_is_whole(path):
    write_arrow_file(path)
    content = path.read_bytes()
    place = messages(path, 8)[-1]
    assert content[place : place + 8] == END
    path.write_bytes(content[:place] + content[place + 8 :])  # as writers before 0.15 left it
    shard = ArrowShard(path)
    assert (len(read_all(shard)), shard.faults) == (ROWS, ())


def test_a_batch_that_the_footer_does_not_list_is_a_fault(path):
    write_arrow_file(path)
    content = path.read_bytes()
    write_arrow_file(path, IN_GROUP)
    short = path.read_bytes()
    path.write_bytes(content[: messages_end(content)] + END + short[messages_end(short) + 8 :])
    shard = ArrowShard(path)
    assert len(shard) == ROWS
    assert "the footer lists 1 batches" in shard.faults[0].reason


def messages_end(content):
    return content.rindex(END)


def test_a_batch_that_cannot_be_unpacked_is_an_error_of_its_rows(path):
    write_arrow(path, compression="zstd")
    data = bytearray(path.read_bytes())
    place = data.rindex(b"\x28\xb5\x2f\xfd")  # zstd's mark
    data[place] ^= 1
    path.write_bytes(data)
    found = read_all(ArrowShard(path))
    assert all(is_right(found[row], row) for row in range(IN_GROUP))
    for row in range(IN_GROUP, ROWS):
        assert f"record '{row}': record batch 1 is damaged: " in str(found[row])


def test_a_batch_that_declares_too_much_is_not_unpacked(path):
    schema = pa.schema([("x", pa.binary())])
    batch = pa.record_batch([pa.array([b"\0" * 10**6])], schema)
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema, options=options) as to:
        to.write_batch(batch)
    assert path.stat().st_size < 10**4
    with pytest.raises(RecordError, match=r"takes 10\d{5} bytes, at most 10000 \(Limits.unpacked"):
        ArrowShard(path, limits=Limits(unpacked_bytes=10**4)).read(0)
    assert ArrowShard(path).read(0).parts["x"] == b"\0" * 10**6


def test_offsets_that_lead_out_of_a_batch_are_errors_of_its_rows(path):
    good = pa.table({"x": [b"a", b"b"]})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, good.schema) as stream:
        stream.write_table(good)
    content = path.read_bytes()
    offsets = struct.pack("<4i2s", 0, 1, 2, 0, b"ab")
    assert content.count(offsets) == 1
    path.write_bytes(content.replace(offsets, struct.pack("<4i2s", 0, 1, 2**30, 0, b"ab")))
    for row in range(2):
        with pytest.raises(RecordError, match="record batch 0 is damaged"):
            ArrowShard(path).read(row)


def test_a_batch_whose_buffers_overlap_or_whose_columns_differ_ends_what_is_there(path):
    rows = pa.table({"x": pa.array([5] * 9, pa.int64()), "y": pa.array([6] * 9, pa.int64())})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, rows.schema) as stream:
        stream.write_table(rows)
    content = path.read_bytes()
    overlap = struct.pack("<4q", 72, 0, 72, 72), struct.pack("<4q", 72, 0, 0, 72)
    nodes = struct.pack("<4q", 9, 0, 9, 0), struct.pack("<4q", 8, 0, 9, 0)
    for old, new in (overlap, nodes):
        assert content.count(old) == 1
        path.write_bytes(content.replace(old, new))
        shard = ArrowShard(path)
        assert len(shard) == 0
        assert "record batch" in shard.faults[0].reason
    path.write_bytes(content)
    assert dict(ArrowShard(path).read(8).parts) == {"x": 5, "y": 6}


def test_dictionaries_that_grow_and_change(path):
    schema = pa.schema([("x", pa.dictionary(pa.int8(), pa.string())), ("n", pa.int64())])
    values = [["a", "b"], ["a", "b", "c"], ["z", "y"]]
    for deltas in (False, True):
        options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=deltas)
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, schema, options=options) as stream:
            for number, words in enumerate(values):
                last = pa.array([len(words) - 1, 0], pa.int8())
                column = pa.DictionaryArray.from_arrays(last, pa.array(words))
                stream.write_batch(pa.record_batch([column, pa.array([number] * 2)], schema))
        path.write_bytes(sink.getvalue())
        shard = ArrowShard(path, cache=BlockCache(limit=1))
        expected = [word for words in values for word in (words[-1], words[0])]
        order = [5, 0, 3, 1, 4, 2]
        assert [shard.read(row).parts["x"] for row in order] == [expected[row] for row in order]
        assert [shard.read(row).parts["n"] for row in range(6)] == [0, 0, 1, 1, 2, 2]


def test_a_dictionary_whose_indices_lead_out_is_an_error_of_the_rows(path):
    write = pa.table({"x": pa.array(["a", "b", "a"]).dictionary_encode()})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, write.schema) as stream:
        stream.write_table(write)
    content = path.read_bytes()
    indices = b"".join(n.to_bytes(4, "little") for n in (0, 1, 0))
    path.write_bytes(content.replace(indices, indices[:-4] + b"\x07\0\0\0"))
    with pytest.raises(RecordError, match="record batch 0 is damaged"):
        ArrowShard(path).read(0)


@pytest.mark.parametrize(
    "content", [b"", b"ARROW1\0\0", b"ARROW1", b"\0" * 100, b"text " * 99, END]
)
def test_other_files_have_no_records_and_a_fault(content, path):
    path.write_bytes(content)
    shard = ArrowShard(path)
    assert (len(shard), len(shard.faults)) == (0, 1)
    assert shard.identity()
    with pytest.raises(IndexError, match="record 0 of 0"):
        shard.read(0)
    with pytest.raises(ValueError, match="there are no records in"):
        ArrowSource(path)


@each
def test_no_rows(write, path):
    write(path, 0)
    shard = ArrowShard(path)
    assert (len(shard), shard.faults) == (0, ())


def test_no_file_stays_open(path):
    write_arrow(path)
    before = len(os.listdir("/proc/self/fd"))
    shard = ArrowShard(path)
    read_all(shard)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_has_changed_stops_the_run(path):
    write_arrow(path)
    shard = ArrowShard(path)
    assert is_right({"__key__": shard.read(0).key, **shard.read(0).parts}, 0)
    os.utime(path, ns=(1, 1))
    with pytest.raises(OSError, match="has changed since it was opened first"):
        shard.read(IN_GROUP)


def test_identity_is_of_name_size_and_headers(path):
    write_arrow(path)
    same, other = path.with_name("b") / path.name, path.with_name("c") / path.name
    for place in (same, other):
        place.parent.mkdir()
    write_arrow(same)
    write_arrow(other, ROWS - 1)
    prints = [ArrowShard(place).identity() for place in (path, same, other)]
    assert prints[0] == prints[1] != prints[2]


def test_it_goes_into_another_process(path):
    write_arrow(path)
    shard = pickle.loads(pickle.dumps(ArrowShard(path)))
    assert shard.read(4).key == sign(4).hex()


def test_urls(path):
    fsspec = pytest.importorskip("fsspec")
    write_arrow(path)
    with fsspec.filesystem("memory").open("/batches/a.arrow", "wb") as file:
        file.write(path.read_bytes())
    shard = ArrowShard("memory://batches/a.arrow")
    assert all(is_right(found, row) for row, found in enumerate(read_all(shard)))
