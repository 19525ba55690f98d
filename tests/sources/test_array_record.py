"""ArrayRecord files: maps of msgpack, what is no such map, and what is cut."""

import os
import pickle
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import msgpack
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from signed_rows import ROWS, is_right, read_all, write_array_record

from datarax.sources import array_record
from datarax.sources.array_record import (
    LARGE,
    SYSTEM,
    ArrayRecordShard,
    ArrayRecordSource,
)
from datarax.sources.limits import Limits
from datarax.sources.record import RecordError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.arrayrecord"


def write(path, records, options="group_size:1"):
    writer = ArrayRecordWriter(str(path), options)
    for record in records:
        writer.write(record)
    writer.close()


@pytest.mark.parametrize("options", ["group_size:1", "group_size:4", "group_size:1,uncompressed"])
def test_what_the_library_writes_is_read(options, path):
    write_array_record(path, options=options)
    shard = ArrayRecordShard(path)
    assert (len(shard), shard.faults) == (ROWS, ())
    assert all(is_right(found, row) for row, found in enumerate(read_all(shard)))


def test_values_of_every_type(path):
    parts = {"a": b"\0", "b": "é", "c": -1, "d": 0.5, "e": True, "f": None, "g": [1, [b""]]}
    parts["h"] = {"x": {"y": 2**64 - 1}}
    write(path, [msgpack.packb({"__key__": "k", **parts}), msgpack.packb(parts)])
    shard = ArrayRecordShard(path)
    assert (shard.read(0).key, dict(shard.read(0).parts)) == ("k", parts)
    assert (shard.read(1).key, dict(shard.read(1).parts)) == ("1", parts)


def many_names_one_twice():
    """A map of 95 pairs and 94 names: 0x80 | 94 happens to be the first byte of long maps."""
    names = [f"n{number}" for number in range(94)]
    packed = b"".join(map(msgpack.packb, [x for name in [*names, "n0"] for x in (name, b"")]))
    return b"\xde" + (95).to_bytes(2, "big") + packed


NESTED = b"\x91" * 5000 + b"\xc0"
REFUSED = {
    "list": (msgpack.packb([1]), "is no msgpack map of parts, but a list"),
    "empty": (b"", "is no msgpack map of parts"),
    "cut": (msgpack.packb({"a": "bcd"})[:-1], "is no msgpack map of parts"),
    "more": (msgpack.packb({"a": 1}) + b"\0", "is no msgpack map of parts"),
    "number": (msgpack.packb({1: 1}), "is no msgpack map of parts"),
    "bytes": (msgpack.packb({b"a": 1}), "is no msgpack map of parts, but a dict|not allowed"),
    "utf8": (b"\x81\xa1a\xa1\xff", "is no msgpack map of parts"),
    "count": (b"\xdf\xff\xff\xff\xff", "is no msgpack map of parts"),
    "twice": (b"\x82\xa1a\x01\xa1a\x02", "a map has a name twice"),
    "twice of many": (many_names_one_twice(), "a map has a name twice"),
    "twice inside": (b"\x81\xa1a\x82\xa1a\x01\xa1a\x02", "a map has a name twice"),
    "extension": (msgpack.packb({"a": msgpack.ExtType(5, b"x")}), "extension 5 is not read"),
    "time": (msgpack.packb({"a": msgpack.Timestamp(1)}), "a: a value of type Timestamp is not"),
    "deep": (b"\x81\xa1a" + NESTED, "is no msgpack map of parts"),
    "deeper": (b"\x81\xa1a" + NESTED[-40:], r"a: is nested deeper than 32 \(Limits.json_depth"),
    "key": (msgpack.packb({"__key__": [1]}), "__key__: is a list, and no key"),
    "large": (msgpack.packb({"a": b"b" * 101}), "a: has 101 bytes, at most 100"),
    "large text": (msgpack.packb({"a": {"b": "b" * 101}}), "a: has 101 bytes, at most 100"),
    "long": (msgpack.packb({"a": [1] * 13}), "a: has 104 bytes, at most 100"),
}


def test_what_is_no_map_of_parts_is_an_error_of_its_record(path):
    write(path, [record for record, _ in REFUSED.values()] + [msgpack.packb({"a": 1})])
    shard = ArrayRecordShard(path, limits=Limits(member_bytes=100))
    for row, (_, reason) in enumerate(REFUSED.values()):
        with pytest.raises(RecordError, match=f"record '{row}'.*({reason})"):
            shard.read(row)
    assert shard.read(len(REFUSED)).parts == {"a": 1}


def test_a_fault_names_key_and_part(path):
    write(path, [msgpack.packb({"__key__": "k", "a": b"b" * 9})])
    with pytest.raises(RecordError) as caught:
        ArrayRecordShard(path, limits=Limits(member_bytes=8)).read(0)
    fault = caught.value.fault
    assert (fault.shard, fault.key, fault.row, fault.field) == (str(path), "k", 0, "a")


def test_a_file_of_no_records_is_told_from_one_that_is_cut(path):
    write(path, [])
    assert (len(ArrayRecordShard(path)), ArrayRecordShard(path).faults) == (0, ())
    write(path, [os.urandom(5000) for _ in range(30)])
    content = path.read_bytes()
    assert len(content) > 3 * 2**16
    counted = 0
    for cut in [n * 2**16 + by for n in range(4) for by in (-1, 0, 1, 40)] + [len(content) - 1]:
        path.write_bytes(content[: max(cut, 0)])
        shard = ArrayRecordShard(path)
        assert (len(shard), len(shard.faults)) == (0, 1)
        assert shard.faults[0].reason.startswith(("cannot be opened: ", "the file is empty"))
        try:
            reader = ArrayRecordReader(str(path), "readahead_buffer_size:0")
        except RuntimeError:
            continue
        counted += reader.num_records() == 0
    assert counted  # the library itself is content with some of them


def test_a_reader_is_kept_unless_it_holds_a_large_record(path):
    large = msgpack.packb({"a": os.urandom(LARGE)})
    write(path, [large] + [msgpack.packb({"a": n}) for n in range(20)])
    shard = ArrayRecordShard(path)
    for row, kept in ((3, 1), (0, 0), (4, 1), (5, 1)):
        shard.read(row)
        assert len(shard.readers) == kept
    write(path, [large])
    shard = ArrayRecordShard(path)  # all are large: read without seeking
    for _ in range(2):
        assert len(shard.read(0).parts["a"]) == LARGE
        assert len(shard.readers) == 1


def test_no_more_readers_are_kept_than_may_be(tmp_path, monkeypatch):
    shards = []
    for number in range(3):
        write(tmp_path / str(number), [msgpack.packb({"a": [number, row]}) for row in range(2)])
        shards.append(ArrayRecordShard(tmp_path / str(number)))
    monkeypatch.setattr(array_record, "MOST_OPEN", 2)
    monkeypatch.setattr(array_record, "_holders", weakref.WeakSet())

    def read(number, row):
        assert shards[number].read(row).parts == {"a": [number, row]}

    read(0, 0)
    read(1, 0)
    shards[0].watch.due += 1  # as if read after the second
    read(2, 0)
    assert [len(shard.readers) for shard in shards] == [1, 0, 1]
    read(1, 1)
    assert sum(len(shard.readers) for shard in shards) == 2


def test_a_damaged_record_is_an_error_of_it_alone(path):
    write(
        path, [msgpack.packb({"a": bytes([n]) * 50}) for n in range(5)], "group_size:1,uncompressed"
    )
    data = bytearray(path.read_bytes())
    data[data.index(b"\3" * 50)] ^= 1
    path.write_bytes(data)
    shard = ArrayRecordShard(path)
    with pytest.raises(RecordError, match=r"record '3': cannot be read: .*mismatch"):
        shard.read(3)
    for row in (0, 1, 2, 4):
        assert shard.read(row).parts["a"] == bytes([row]) * 50


def test_other_files_have_no_records_and_a_fault(path):
    for content in (b"", b"x", b"text" * 50000, bytes(2**17)):
        path.write_bytes(content)
        shard = ArrayRecordShard(path)
        assert (len(shard), len(shard.faults)) == (0, 1)
        with pytest.raises(IndexError, match="record 0 of 0"):
            shard.read(0)
    with pytest.raises(ValueError, match="there are no records in"):
        ArrayRecordSource(path)


def test_what_the_system_says_stops_the_run(path, tmp_path):
    with pytest.raises(FileNotFoundError):
        ArrayRecordShard(path)
    with pytest.raises(OSError, match="is not a file"):
        ArrayRecordShard(tmp_path)
    for place in (str(path), str(tmp_path)):
        with pytest.raises(RuntimeError, match=SYSTEM):
            ArrayRecordReader(place, "readahead_buffer_size:0").close()
    write_array_record(path)
    shard = ArrayRecordShard(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(OSError, match="has changed since it was opened first"):
        shard.read(0)
    with pytest.raises(ValueError, match="local disks alone"):
        ArrayRecordShard("memory://a.arrayrecord")


def test_a_shard_leaves_no_file_open(path):
    write_array_record(path)
    before = len(os.listdir("/proc/self/fd"))
    shard = ArrayRecordShard(path)
    read_all(shard)
    del shard
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_thread_keeps_its_own_reader_as_long_as_it_lives(path, tmp_path):
    write_array_record(path)
    write(tmp_path / "b", [msgpack.packb({"a": 1})])
    shard, other = ArrayRecordShard(path), ArrayRecordShard(tmp_path / "b")
    before = len(os.listdir("/proc/self/fd"))
    with ThreadPoolExecutor(2) as pool:
        both = threading.Barrier(2)
        list(pool.map(lambda row: (both.wait(), shard.read(row)), range(2)))
        assert len(os.listdir("/proc/self/fd")) == before + 2
        kept = dict(shard.readers)
        list(pool.map(lambda row: (both.wait(), shard.read(row)), range(2)))
        assert shard.readers == kept
        del kept
    other.read(0)  # whoever opens a reader closes those of threads that are gone
    assert shard.readers == {}
    assert len(os.listdir("/proc/self/fd")) == before + 1


def test_identity_is_of_name_size_count_and_end(path):
    write_array_record(path)
    same, other = path.with_name("b") / path.name, path.with_name("c") / path.name
    for place in (same, other):
        place.parent.mkdir()
    same.write_bytes(path.read_bytes())
    write_array_record(other, ROWS - 1)
    prints = [ArrayRecordShard(place).identity() for place in (path, same, other)]
    assert prints[0] == prints[1] != prints[2]


def test_it_goes_into_another_process(path):
    write_array_record(path)
    shard = pickle.loads(pickle.dumps(ArrayRecordShard(path)))
    assert all(is_right(found, row) for row, found in enumerate(read_all(shard)))


def test_without_the_library_it_says_what_to_install(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "array_record.python", None)
    with pytest.raises(ImportError, match=r"pip install 'datarax\[arrayrecord\]'"):
        ArrayRecordShard(path)
