import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tar_samples import OLD, numbered, tar_bytes, write_old

from datarax.sources.paths import INDEX_SUFFIX
from datarax.sources.tar import TarShard
from datarax.sources.tar_bytes import open_bytes
from datarax.sources.tar_index import FLAWS, check_index, index_tar
from datarax.sources.tar_index_file import (
    DTYPES,
    MAGIC,
    decode_index,
    encode_index,
    load_index,
    save_index,
    version_of,
)

DATA = tar_bytes([*numbered(4), ("/absolute.txt", b""), ("0002.txt", b"twice")])
SIZE = len(DATA)


def index_of(data):
    return index_tar(lambda offset, size: data[offset : offset + size], len(data))


def equal(one, other):
    return all(
        np.array_equal(vars(one)[field.name], vars(other)[field.name])
        for field in dataclasses.fields(one)
    )


INDEX = index_of(DATA)
ENCODED = encode_index(INDEX, size=SIZE, version="7")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DATARAX_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def path(tmp_path):
    return write_old(tmp_path / "a.tar", DATA)


def beside(path):
    return path.with_name(path.name + INDEX_SUFFIX)


def keys(shard):
    return [shard.read(row).key for row in range(len(shard)) if row != 2]


def test_an_index_is_the_same_after_it_was_kept():
    assert equal(decode_index(ENCODED, size=SIZE, version="7"), INDEX)
    empty = index_of(bytes(1024))
    data = encode_index(empty, size=1024, version="")
    assert equal(decode_index(data, size=1024, version=""), empty)


@pytest.mark.parametrize("version", ["7" * length for length in range(1, 10)])
def test_arrays_are_aligned_and_native_wherever_their_bytes_lie_in_the_file(path, version):
    """A view of unaligned bytes has a buffer of format `=q`, which memoryview cannot index."""
    made = decode_index(encode_index(INDEX, size=SIZE, version=version), size=SIZE, version=version)
    arrays = {name: x for name, x in vars(made).items() if isinstance(x, np.ndarray)}
    assert arrays.keys() == DTYPES.keys()
    for name, each in arrays.items():
        told = (each.flags.aligned, each.dtype.isnative, each.flags.owndata)
        assert told == (True, True, True), name
        assert memoryview(each).tolist() == vars(INDEX)[name].tolist()


def test_tars_are_read_by_an_index_whose_head_has_any_length(tmp_path):
    for length in range(8):
        data = tar_bytes([(f"{n}.{'x' * (length + 1)}", bytes([n])) for n in range(3)])
        made = write_old(tmp_path / f"{length}.tar", data)
        for _ in range(2):  # without the file of the index, and with it
            shard = TarShard(made)
            assert [[*shard.read(n).parts.values()] for n in range(3)] == [
                [b"\0"],
                [b"\1"],
                [b"\2"],
            ]
        assert beside(made).exists()


def test_an_index_of_another_version_is_refused():
    for size, version in ((SIZE + 1, "7"), (SIZE, "8")):
        with pytest.raises(ValueError, match="the tar has changed"):
            decode_index(ENCODED, size=size, version=version)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(place=st.integers(0, len(ENCODED) - 1), change=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_index_is_refused(place, change, cut):
    data = bytearray(ENCODED)
    data[place] ^= change
    with pytest.raises(ValueError, match="damaged"):
        decode_index(ENCODED[:place] if cut else bytes(data), size=SIZE, version="7")


def changed(**arrays):
    return dataclasses.replace(INDEX, **arrays)


def one(values, place, value):
    made = values.copy()
    made[place] = value
    return made


WRONG = {
    "an offset beyond the end": changed(offsets=one(INDEX.offsets, 3, SIZE + 1)),
    "an offset below 0": changed(offsets=one(INDEX.offsets, 3, -1)),
    "a size beyond the end": changed(sizes=one(INDEX.sizes, 0, SIZE)),
    "a size that overflows": changed(sizes=one(INDEX.sizes, 0, 2**63 - 1)),
    "a size below 0": changed(sizes=one(INDEX.sizes, 0, -1)),
    "fewer sizes": changed(sizes=INDEX.sizes[1:]),
    "fewer offsets": changed(offsets=INDEX.offsets[1:]),
    "a suffix that is not there": changed(suffixes=one(INDEX.suffixes, 0, 3)),
    "a suffix below 0": changed(suffixes=one(INDEX.suffixes, 0, -1)),
    "a flaw that is not there": changed(flaws=one(INDEX.flaws, 0, len(FLAWS))),
    "a record without members": changed(starts=one(INDEX.starts, 1, 0)),
    "records that go back": changed(starts=one(INDEX.starts, 1, 8)),
    "a last record beyond the members": changed(starts=one(INDEX.starts, -1, 14)),
    "a first record not at 0": changed(starts=one(INDEX.starts, 0, 1)),
    "fewer records than keys": changed(starts=INDEX.starts[1:]),
    "no records but keys": changed(starts=INDEX.starts[:0]),
    "keys that go back": changed(key_ends=one(INDEX.key_ends, 1, 1)),
    "keys beyond the last": changed(key_ends=one(INDEX.key_ends, -1, 99)),
    "more of the keys": changed(keys=np.append(INDEX.keys, INDEX.keys)),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_index_that_cannot_be_of_the_tar_is_not_believed(path, name):
    """Its digest is right: someone made it so."""
    check_index(INDEX, SIZE)
    with pytest.raises(ValueError, match=r"it (points|names)|its "):
        check_index(WRONG[name], SIZE)
    content = open_bytes(str(path))
    beside(path).write_bytes(encode_index(WRONG[name], size=SIZE, version=version_of(content)))
    assert load_index(content) is None
    assert keys(TarShard(path)) == ["0000", "0001", "0003"]


def head(**changed):
    made = {"size": SIZE, "version": "7", "lengths": [1, 0, 0, 0, 0, 0, 0], "suffix_names": []}
    return json.dumps(made | {"lost": [], "headers": ""} | changed).encode()


HEADS = {
    "nothing": (b"", "Expecting value"),
    "a list": (b"[]", "its head is damaged"),
    "no entries": (b"{}", "its head is damaged"),
    "depth": (b"[" * 99999, "its head is damaged"),
    "lengths that are none": (head(lengths=3), "its head is damaged"),
    "too few lengths": (head(lengths=[1]), "zip"),
    "a negative length": (head(lengths=[1, 0, 0, 0, 0, 0, -1]), "a negative length"),
    "a length beyond the end": (head(lengths=[2, 0, 0, 0, 0, 0, 0]), "buffer"),
    "a huge length": (head(lengths=[10**20, 0, 0, 0, 0, 0, 0]), "its head is damaged"),
    "an infinite length": (head(lengths=[float("inf"), 0, 0, 0, 0, 0, 0]), "its head is damaged"),
    "more than the arrays": (head(lengths=[0] * 7), "more in it than its arrays"),
    "faults that are none": (head(lost=[1]), "its head is damaged"),
    "faults without reasons": (head(lost=[["1"]]), "unpack"),
}


@pytest.mark.parametrize(("line", "reason"), HEADS.values(), ids=HEADS)
def test_a_head_that_makes_no_sense_is_refused(line, reason):
    for start, refused in ((line, reason), (head(), None)):
        body = start + b"\n" + bytes(8)
        data = MAGIC + hashlib.blake2b(body, digest_size=16).digest() + body
        if refused is None:
            assert len(decode_index(data, size=SIZE, version="7")) == 0
        else:
            with pytest.raises(ValueError, match=refused):
                decode_index(data, size=SIZE, version="7")


def test_an_index_is_kept_beside_the_tar_and_used(path, cache):
    os.chmod(path, 0o660)
    TarShard(path)
    assert beside(path).stat().st_mode & 0o777 == 0o660
    other = index_of(tar_bytes(numbered(4)[:6]) + bytes(SIZE))
    version = version_of(open_bytes(str(path)))
    beside(path).write_bytes(encode_index(other, size=SIZE, version=version))
    assert len(TarShard(path)) == 2  # that of the file, though the tar has more
    assert not cache.exists()


def test_an_index_is_made_anew_when_the_tar_changes(path):
    TarShard(path)
    for count, time in ((50, OLD), (50, OLD + 1), (52, OLD + 1), (53, OLD + 10**9)):
        path.write_bytes(tar_bytes(numbered(count)))
        os.utime(path, ns=(time, time))
        assert load_index(open_bytes(str(path))) is None
        assert len(TarShard(path)) == count
        assert len(load_index(open_bytes(str(path)))) == count


def test_a_tar_of_the_same_size_and_time_is_told_by_its_ends(path):
    for count in (4, 5, 4, 6):
        data = tar_bytes(numbered(count))
        assert len(data) == 20480
        assert len(TarShard(write_old(path, data))) == count
    members = numbered(60)
    other = [*members[9:12], *members[3:9], *members[:3], *members[12:]]
    for first, each in (("0000", members), ("0003", other)):
        assert TarShard(write_old(path, tar_bytes(each))).read(0).key == first


def test_a_damaged_index_is_made_anew(path):
    TarShard(path)
    good = beside(path).read_bytes()
    for bad in (b"", good[:50], good[:-1], good + b"x", b"x" * (2 * SIZE + 2**21)):
        beside(path).write_bytes(bad)
        assert keys(TarShard(path)) == ["0000", "0001", "0003"]
        assert beside(path).read_bytes() == good


def test_a_huge_index_or_a_pipe_is_not_even_read(path):
    with beside(path).open("wb") as file:
        file.truncate(2**40)
    assert len(TarShard(path)) == 4
    beside(path).unlink()
    os.mkfifo(beside(path))
    assert load_index(open_bytes(str(path))) is None


def test_an_index_that_cannot_be_read_is_made_anew(path):
    beside(path).symlink_to("/proc/self/mem")  # a file by all signs, but for reading it
    with pytest.raises(OSError, match="Input/output"):
        beside(path).read_bytes()
    assert len(TarShard(path)) == 4
    assert beside(path).read_bytes()


def test_no_index_is_kept_of_a_tar_that_may_change_unseen(tmp_path, path):
    fresh = tmp_path / "fresh.tar"
    fresh.write_bytes(DATA)
    assert len(TarShard(fresh)) == 4
    assert not beside(fresh).exists()
    ahead = path.stat().st_mtime_ns + 10**18
    os.utime(path, ns=(ahead, ahead))
    TarShard(path)
    assert beside(path).exists()


def test_where_the_folder_is_read_only_the_cache_keeps_the_index(path, cache):
    beside(path).mkdir()  # root may write anywhere, but not over a folder
    TarShard(path)
    (kept,) = (cache / "tar").iterdir()
    assert kept.name.startswith("a.tar-")
    assert save_index(INDEX, open_bytes(str(path))) == kept
    assert equal(load_index(open_bytes(str(path))), INDEX)
    (path.parent / "b").mkdir()
    other = write_old(path.parent / "b" / "a.tar", DATA)
    beside(other).mkdir()
    TarShard(other)
    assert len(list((cache / "tar").iterdir())) == 2


def test_where_nothing_can_be_written_the_index_is_in_memory(path, cache):
    beside(path).mkdir()
    cache.write_bytes(b"not a folder")
    assert keys(TarShard(path)) == ["0000", "0001", "0003"]
    assert list(beside(path).iterdir()) == []


OPEN = """
import sys
from datarax.sources.tar import TarShard
print("ready", flush=True)
sys.stdin.readline()
for path in sys.argv[1:]:
    shard = TarShard(path)
    print(len(shard), shard.read(len(shard) - 1).key, flush=True)
"""


def test_two_processes_may_open_the_same_tars_at_once(tmp_path):
    paths = [write_old(tmp_path / f"{n}.tar", tar_bytes(numbered(300 + n))) for n in range(5)]
    command = [sys.executable, "-c", OPEN, *paths]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as one, subprocess.Popen(command, **pipes) as other:
        for process in (one, other):
            assert process.stdout.readline() == "ready\n"
        for process in (one, other):
            process.stdin.write("\n")
            process.stdin.flush()
        expected = "".join(f"{300 + n} {299 + n:04}\n" for n in range(5))
        assert one.stdout.read() == other.stdout.read() == expected
    assert len(list(tmp_path.iterdir())) == 10


def test_an_index_is_arrays(tmp_path):
    data = tar_bytes([(f"{n // 4:06}.{n % 4}", b"x") for n in range(8000)])
    tracemalloc.start()
    index = index_of(data)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index) == 2000
    assert sum(each.nbytes for each in vars(index).values() if isinstance(each, np.ndarray)) < kept
    assert kept < 8000 * 40
    assert peak < 8000 * 160
