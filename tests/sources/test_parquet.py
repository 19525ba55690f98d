"""Parquet shards: random access by row group, the cache, footers and pages that are damaged."""

import os
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from signed_rows import IN_GROUP, ROWS, is_right, read_all, sign, write_parquet

from datarax.sources.arrow import ArrowShard
from datarax.sources.arrow_cells import is_damage
from datarax.sources.block_cache import BlockCache
from datarax.sources.limits import Limits
from datarax.sources.parquet import ParquetShard, ParquetSource
from datarax.sources.record import RecordError


@pytest.fixture
def path(tmp_path):
    write_parquet(tmp_path / "a.parquet")
    return tmp_path / "a.parquet"


def test_opening_decodes_nothing_and_a_row_only_its_group(path):
    cache = BlockCache()
    shard = ParquetShard(path, cache=cache)
    assert len(shard) == ROWS
    shard.identity()
    assert cache.made == 0
    for row, groups in [(4, 1), (5, 1), (3, 1), (0, 2), (5, 2)]:
        assert is_right({"__key__": shard.read(row).key, **shard.read(row).parts}, row)
        assert cache.made == groups


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip", "lz4", "brotli"])
def test_what_pyarrow_writes_is_read(version, compression, path):
    for rows_in_group in (1, 4, 100):
        write_parquet(
            path,
            compression=compression,
            data_page_version=version,
            row_group_size=rows_in_group,
            use_dictionary=rows_in_group == 4,
        )
        assert all(is_right(found, row) for row, found in enumerate(read_all(ParquetShard(path))))


def test_a_group_of_many_batches(tmp_path):
    count = 3000
    numbers = pa.table({"n": np.arange(count)})
    parquet.write_table(numbers, tmp_path / "x", row_group_size=count)
    shard = ParquetShard(tmp_path / "x")
    assert [shard.read(row).parts["n"] for row in range(count)] == list(range(count))


def test_threads_decode_a_group_once(path):
    cache = BlockCache()
    shard = ParquetShard(path, cache=cache)
    gate = threading.Barrier(8)

    def read(row):
        gate.wait()
        return shard.read(row % IN_GROUP).parts["text"]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, range(8)))
    assert cache.made == 1
    assert found == [sign(row % IN_GROUP).hex() * 2 for row in range(8)]


def test_the_cache_is_bounded_and_left_with_the_shard(path):
    cache = BlockCache(limit=1)
    shard = ParquetShard(path, cache=cache)
    for _ in range(3):
        read_all(shard)
    assert cache.made == 6
    one_group = cache.held
    assert 0 < one_group < 2000
    del shard
    assert cache.held == 0


def test_no_file_stays_open(path):
    before = len(os.listdir("/proc/self/fd"))
    shard = ParquetShard(path)
    read_all(shard)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_damaged_page_is_an_error_of_the_rows_of_its_group(path):
    write_parquet(path, compression="none", write_statistics=False)
    data = bytearray(path.read_bytes())
    place = data.index(sign(4) + sign(4))
    data[place] ^= 1
    path.write_bytes(data)
    found = read_all(ParquetShard(path))
    assert all(is_right(found[row], row) for row in range(IN_GROUP))
    for row in range(IN_GROUP, ROWS):
        assert isinstance(found[row], RecordError)
        assert f"a.parquet, record '{row}': row group 1 cannot be decoded: " in str(found[row])
        assert "checksum" in str(found[row]).lower() or "crc" in str(found[row]).lower()


def test_without_checksums_only_the_value_is_wrong(path):
    write_parquet(path, compression="none", write_statistics=False, write_page_checksum=False)
    data = bytearray(path.read_bytes())
    place = data.index(sign(4) + sign(4))
    data[place] ^= 1
    path.write_bytes(data)
    found = read_all(ParquetShard(path))
    assert all(is_right(found[row], row) for row in range(ROWS) if row != 4)
    assert found[4].pop("bytes") != sign(4) * 2
    assert is_right(found[4] | {"bytes": sign(4) * 2}, 4)


FOOTERS = {
    "empty": b"",
    "head": b"PAR1",
    "no footer": b"PAR1PAR1",
    "encrypted": b"PARE" + bytes(20) + b"PARE",
    "long footer": b"PAR1" + bytes(20) + b"\xff\xff\xff\x7fPAR1",
    "no thrift": b"PAR1" + b"\xff" * 20 + b"\x14\0\0\0PAR1",
    "text": b"text " * 100,
}


@pytest.mark.parametrize("name", FOOTERS)
def test_without_a_footer_there_are_no_records_and_a_fault(name, tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(FOOTERS[name])
    shard = ParquetShard(path)
    assert len(shard) == 0
    assert [(fault.shard, fault.key, fault.row) for fault in shard.faults] == [
        (str(path), "", None)
    ]
    assert "no Parquet footer can be read" in shard.faults[0].reason
    assert shard.identity()
    with pytest.raises(IndexError, match="record 0 of 0"):
        shard.read(0)
    with pytest.raises(ValueError, match=r"there are no records in .*\n.*no Parquet footer"):
        ParquetSource(path)


def test_one_shard_of_two_may_be_lost(path):
    (path.parent / "b.parquet").write_bytes(path.read_bytes()[:-1])
    source = ParquetSource(path.parent, fields={"text": {"from": "text", "decode": "text"}})
    assert len(source) == ROWS
    assert [fault.shard for fault in source.faults] == [str(path.parent / "b.parquet")]


def test_no_rows(path):
    write_parquet(path, rows=0)
    shard = ParquetShard(path)
    assert (len(shard), shard.faults) == (0, ())


def test_a_group_that_takes_too_much_is_not_decoded(path):
    parquet.write_table(pa.table({"x": ["a" * 100] * 1000}), path)
    size = parquet.read_metadata(path).row_group(0).total_byte_size
    cache = BlockCache()
    shard = ParquetShard(path, limits=Limits(unpacked_bytes=size - 1), cache=cache)
    with pytest.raises(RecordError, match=rf"takes {size} bytes, at most {size - 1} \(Limits.unp"):
        shard.read(0)
    assert cache.held == 0
    assert size < 2000  # the text is there once
    shard = ParquetShard(path, limits=Limits(unpacked_bytes=2000))
    with pytest.raises(RecordError, match=r"takes 10\d{4} bytes, at most 2000"):
        shard.read(0)


def test_a_file_that_is_gone_or_other_stops_the_run(path):
    shard = ParquetShard(path, cache=BlockCache())
    shard.read(0)
    os.utime(path, ns=(1, 1))
    assert shard.read(1)
    with pytest.raises(OSError, match="has changed since it was opened first"):
        shard.read(IN_GROUP)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        shard.read(IN_GROUP)
    with pytest.raises(FileNotFoundError):
        ParquetShard(path)
    with pytest.raises(OSError, match="is not a file"):
        ParquetShard(path.parent)


def test_damage_is_told_from_the_system():
    damage = [pa.ArrowInvalid("a"), OSError("Corrupt"), pa.ArrowNotImplementedError("a")]
    system = [OSError(5, "Input/output error"), TimeoutError("a"), MemoryError(), RuntimeError()]
    assert all(map(is_damage, damage))
    assert not any(map(is_damage, [*system, pa.lib.ArrowMemoryError("a"), KeyboardInterrupt()]))


def test_identity_is_of_name_size_and_footer(path):
    same, other = path.with_name("b") / "a.parquet", path.with_name("c") / "a.parquet"
    for place in (same, other):
        place.parent.mkdir()
    same.write_bytes(path.read_bytes())
    os.utime(same, ns=(1, 1))
    write_parquet(other, rows=ROWS - 1)
    prints = [ParquetShard(place).identity() for place in (path, same, other)]
    assert prints[0] == prints[1] != prints[2]
    data = path.read_bytes()
    path.write_bytes(data[:-12] + bytes([data[-12] ^ 1]) + data[-11:])
    assert ParquetShard(path).identity() != prints[0]


def test_it_goes_into_another_process(path):
    shard = pickle.loads(pickle.dumps(ParquetShard(path, limits=Limits(member_bytes=16))))
    assert shard.limits.member_bytes == 16
    with pytest.raises(RecordError, match="text: has 32 bytes, at most 16"):
        shard.read(0)


def test_urls():
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    with memory.open("/tables/a.parquet", "wb") as file:
        parquet.write_table(pa.table({"x": [1, 2, 3]}), file, row_group_size=2)
    source = ParquetSource("memory://tables/*.parquet")
    assert [int(element.data["x"]) for element in source] == [1, 2, 3]


@pytest.mark.parametrize("open_shard", [ParquetShard, ArrowShard])
def test_without_pyarrow_it_says_what_to_install(open_shard, path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'datarax\[parquet\]'"):
        open_shard(path)
