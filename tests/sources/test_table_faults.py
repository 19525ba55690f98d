"""Cut at any byte or changed at any byte: an error, a fault or right values, never mixed rows."""

import multiprocessing
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signed_rows import IN_GROUP, KINDS, ROWS, assert_paired, is_right, read_all

from datarax.sources.record import RecordError

every = pytest.mark.parametrize("kind", KINDS)
WHOLE = {}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("faults") / "x"


def content_of(kind, path):
    if kind not in WHOLE:
        write, options, _ = KINDS[kind]
        write(path, **options)
        WHOLE[kind] = path.read_bytes()
    return WHOLE[kind]


def shard_of(kind, path, data):
    path.write_bytes(data)
    return KINDS[kind][2](path)


def check_cut(kind, path, cut):
    shard = shard_of(kind, path, content_of(kind, path)[:cut])
    found = read_all(shard)
    assert len(shard.faults) == 1
    assert all(is_right(parts, row) for row, parts in enumerate(found))
    assert len(found) % IN_GROUP == 0
    if "arrow " not in kind:
        assert found == []


def check_flipped(kind, path, place, change):
    data = bytearray(content_of(kind, path))
    data[place] ^= change
    shard = shard_of(kind, path, data)
    shard.identity()
    found = read_all(shard)
    assert len(shard) == ROWS or shard.faults
    assert len(shard) <= ROWS
    for row, parts in enumerate(found):
        if isinstance(parts, RecordError) or is_right(parts, row):
            continue
        if kind != "parquet v2":  # the headers of its pages have no checksum, and say what is null
            assert_paired(parts)
        assert kind != "arrayrecord"


def share(kind, path, number):
    """Places in the file, with the borders of its parts."""
    size = len(content_of(kind, path))
    chance = random.Random(number)
    return sorted({0, 1, size - 1, *(chance.randrange(size) for _ in range(number))})


@every
def test_cut_at_some_bytes(kind, path):
    for cut in share(kind, path, 20):
        check_cut(kind, path, cut)


@every
def test_some_changed_bytes(kind, path):
    for place in share(kind, path, 30):
        check_flipped(kind, path, place, 1 << place % 8)


@pytest.mark.slow
@every
@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_cut_at_any_byte(kind, path, data):
    size = len(content_of(kind, path))
    check_cut(kind, path, data.draw(st.integers(0, size - 1), label="cut"))


def flip_each(kind, path, start, step):
    size = len(content_of(kind, path))
    for place in range(start, size, step):
        for change in (1 << place % 8, 0xFF):
            check_flipped(kind, path, place, change)


@pytest.mark.slow
@every
def test_bytes_changed_one_by_one(kind, tmp_path):
    """In a process of its own, so that a crash of pyarrow is a failure and not the end."""
    step = {"arrow": 1, "parquet": 3}.get(kind.split()[0], 40)
    path = tmp_path / "x"
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=flip_each, args=(kind, path, 0, step))
    process.start()
    process.join(280)
    process.kill()
    process.join()
    assert process.exitcode == 0
