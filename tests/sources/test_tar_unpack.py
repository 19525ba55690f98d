import gzip
import os
import subprocess
import sys
import tracemalloc

import fsspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tar_samples import numbered, tar_bytes, write_old

from datarax.sources.limits import Limits
from datarax.sources.record import DecodeError
from datarax.sources.tar import TarShard, TarSource
from datarax.sources.tar_unpack import unpack

DATA = tar_bytes(numbered(20))


def zstd(data):
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


PACK = {"a.tar.gz": gzip.compress, "a.tgz": gzip.compress, "a.tar.zst": zstd}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DATARAX_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def contents(shard):
    return [(record.key, dict(record.parts)) for record in map(shard.read, range(len(shard)))]


@pytest.mark.parametrize("name", PACK)
def test_a_compressed_tar_is_unpacked_once_to_the_cache(tmp_path, cache, name):
    plain = TarShard(write_old(tmp_path / "a.tar", DATA))
    path = write_old(tmp_path / name, PACK[name](DATA))
    packed = TarShard(path)
    assert (contents(packed), packed.faults) == (contents(plain), ())
    assert packed.name == str(path)
    before = {file: file.stat().st_ino for file in (cache / "tar").iterdir()}
    assert sorted(file.suffix for file in before) == [".datarax-index", ".tar"]
    again = TarShard(path)
    assert contents(again) == contents(plain)
    assert {file: file.stat().st_ino for file in (cache / "tar").iterdir()} == before
    assert again.identity() == packed.identity()
    assert sorted(os.listdir(tmp_path)) == sorted({"a.tar", "a.tar.datarax-index", "cache", name})


def test_another_version_is_unpacked_anew(tmp_path):
    path = write_old(tmp_path / "a.tar.gz", gzip.compress(DATA))
    first = TarShard(path)
    write_old(path, gzip.compress(tar_bytes(numbered(30))))
    assert (len(TarShard(path)), len(first)) == (30, 20)
    assert TarShard(path).identity() != first.identity()
    before = unpack(str(path), limit=2**20)
    os.utime(path, ns=(1, 1))
    assert unpack(str(path), limit=2**20) != before


def test_files_of_one_size_and_time_are_not_taken_for_one_another(tmp_path):
    sizes = set()
    for count in (20, 21):
        (tmp_path / f"{count}").mkdir()
        data = gzip.compress(tar_bytes(numbered(count)), compresslevel=0)
        path = write_old(tmp_path / f"{count}" / "a.tgz", data)
        sizes.add(path.stat().st_size)
        assert len(TarShard(path)) == count
    assert len(sizes) == 1


def test_the_command_line_tools_and_several_streams_are_read(tmp_path):
    plain = write_old(tmp_path / "a.tar", DATA)
    subprocess.run(["gzip", "-k", plain], check=True)
    assert contents(TarShard(tmp_path / "a.tar.gz")) == contents(TarShard(plain))
    half = len(DATA) // 2
    for name in ("a.tgz", "a.tar.zst"):
        pack = PACK[name]
        path = write_old(tmp_path / name, pack(DATA[:half]) + pack(b"") + pack(DATA[half:]))
        assert contents(TarShard(path)) == contents(TarShard(plain))
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip"
    path = write_old(tmp_path / "b.tar.zst", zstd(DATA) + skippable)
    assert contents(TarShard(path)) == contents(TarShard(plain))


def test_what_is_compressed_is_told_by_its_bytes_and_not_by_its_name(tmp_path):
    packed = TarShard(write_old(tmp_path / "a.tar", gzip.compress(DATA)))
    plain = TarShard(write_old(tmp_path / "a.tar.gz", DATA))
    assert contents(packed) == contents(plain)
    assert len(packed) == 20


@pytest.mark.parametrize("name", PACK)
def test_a_bomb_is_refused_and_nothing_is_kept(tmp_path, cache, name):
    path = write_old(tmp_path / name, PACK[name](bytes(2**24)))
    assert path.stat().st_size < 2**15
    shard = TarShard(path, limits=Limits(unpacked_bytes=2**20))
    assert len(shard) == 0
    (fault,) = shard.faults
    assert fault.reason == "it decompresses to more than 1048576 bytes (Limits.unpacked_bytes)"
    assert list((cache / "tar").iterdir()) == []
    assert len(TarShard(path).faults) == 0
    assert TarShard(path, limits=Limits(unpacked_bytes=2**20)).faults == shard.faults
    with pytest.raises(ValueError, match=r"there are no records in .*\n.*Limits\.unpacked_bytes"):
        TarSource(path, limits=Limits(unpacked_bytes=2**20))


def test_exactly_the_limit_is_read(tmp_path):
    path = write_old(tmp_path / "a.tgz", gzip.compress(DATA))
    assert len(TarShard(path, limits=Limits(unpacked_bytes=len(DATA)))) == 20


def test_a_bomb_of_one_block_is_found_in_little_memory(tmp_path):
    """A piece of zstd may become 32,768 times as much."""
    path = write_old(tmp_path / "a.tar.zst", zstd(bytes(2**29)))
    tracemalloc.start()
    with pytest.raises(DecodeError, match="more than 1048576 bytes"):
        unpack(str(path), limit=2**20)
    assert tracemalloc.get_traced_memory()[1] < 2**28
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["a.tgz", "a.tar.zst"])
@settings(max_examples=30, derandomize=True, deadline=None)
@given(data=st.data())
def test_a_changed_or_cut_stream_is_read_whole_or_not_at_all(tmp_path_factory, name, data):
    whole = PACK[name](DATA)
    place = data.draw(st.integers(0, len(whole) - 1))
    bad = bytearray(whole)
    if data.draw(st.booleans()):
        del bad[place:]
    else:
        bad[place] ^= data.draw(st.integers(1, 255))
    path = write_old(tmp_path_factory.mktemp("packed") / name, bytes(bad))
    shard = TarShard(path)
    if shard.faults:
        assert len(shard) == 0
    else:
        expected = TarShard(write_old(path.with_name("plain.tar"), DATA))
        assert contents(shard) == contents(expected)


def test_reasons_are_one_line(tmp_path):
    packed = gzip.compress(DATA)
    cases = {
        "a.gz": (packed[:-9], "gzip stream is damaged or cut"),
        "b.gz": (packed[:-8] + bytes(8), "gzip stream is damaged or cut: CRC check failed"),
        "c.gz": (packed + b"garbage", "gzip stream is damaged or cut: Not a gzipped file"),
        "d.gz": (packed[:100] + bytes(100) + packed[200:], "gzip stream is damaged or cut"),
        "a.zst": (zstd(DATA)[:-5], "zstd stream is cut"),
        "b.zst": (zstd(DATA) + b"garbage", "zstd stream is damaged"),
        "c.zst": (zstd(DATA)[:-4] + bytes(4), "zstd stream is damaged"),
    }
    for name, (data, reason) in cases.items():
        with pytest.raises(DecodeError, match=reason) as error:
            unpack(str(write_old(tmp_path / name, data)), limit=2**30)
        assert "\n" not in str(error.value)


def test_a_cache_that_cannot_be_written_stops_it(tmp_path, cache):
    cache.write_bytes(b"not a folder")
    with pytest.raises(OSError, match="cache"):
        TarShard(write_old(tmp_path / "a.tgz", gzip.compress(DATA)))


def test_without_zstandard_the_extra_is_named(tmp_path, monkeypatch):
    path = write_old(tmp_path / "a.tar.zst", zstd(DATA))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ImportError, match=r"pip install 'datarax\[zstd\]'"):
        TarShard(path)


def test_a_compressed_url(tmp_path):
    files = fsspec.filesystem("memory")
    for name, pack in PACK.items():
        files.pipe(f"memory://packed/{name}", pack(DATA))
        shard = TarShard(f"memory://packed/{name}")
        assert contents(shard) == contents(TarShard(write_old(tmp_path / "a.tar", DATA)))
    files.rm("/packed", recursive=True)
