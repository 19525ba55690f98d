"""Every record says its key in every part; whatever happens to the tar, no record mixes two."""

import hashlib
import random
import tarfile
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tar_samples import tar_bytes

from datarax.sources.record import RecordError
from datarax.sources.tar import TarShard
from datarax.sources.tar_headers import read_members

RECORDS = 3
LONG = "long/" * 30
SIGNS = {f"{row:04}": hashlib.blake2b(b"%d" % row, digest_size=16).digest() for row in range(9)}
WHOLE = {
    f"{row:04}": {part: SIGNS[f"{row:04}"] + b"#" * (row * size) for part, size in parts.items()}
    for row, parts in enumerate([{"txt": 1, "json": 200, "seg.png": 0}] * RECORDS)
}
PLAIN = [(f"{key}.{part}", data) for key, parts in WHOLE.items() for part, data in parts.items()]
LONG_NAMES = [(LONG + name, data) for name, data in PLAIN]


class Place(NamedTuple):
    """The row of a member, and where its header begins, its data, the filling, and the next."""

    row: int
    start: int
    data: int
    stop: int
    end: int


def layout(members, format):
    """A tar, and the places of its members."""
    data = tar_bytes(members, format=format)
    places, rows, start = [], {}, 0
    for member in read_members(lambda offset, size: data[offset : offset + size], len(data)):
        key = member.name.rpartition(b"/")[2].partition(b".")[0]
        stop = member.offset + member.size
        end = member.offset + -(-member.size // 512) * 512
        places.append(Place(rows.setdefault(key, len(rows)), start, member.offset, stop, end))
        start = end
    return data, places


TARS = {
    "ustar": layout(PLAIN, tarfile.USTAR_FORMAT),
    "apart": layout(random.Random(3).sample(PLAIN, len(PLAIN)), tarfile.USTAR_FORMAT),
    "gnu": layout(LONG_NAMES, tarfile.GNU_FORMAT),
    "pax": layout(LONG_NAMES, tarfile.PAX_FORMAT),
}


def read_all(path, data):
    """Parts by key of the records that can be read, how many cannot, and the faults."""
    path.write_bytes(data)
    shard = TarShard(path)
    records, errors = [], 0
    for row in range(len(shard)):
        try:
            record = shard.read(row)
        except RecordError:
            errors += 1
        else:
            records.append((record.key.rpartition("/")[2], dict(record.parts)))
    assert all("\n" not in fault.reason for fault in shard.faults)
    return records, errors, shard.faults


def owner(data, *, changed):
    """Whose part it is; the signs of any two records differ in more than two bytes."""
    (key,) = [
        key
        for key, sign in SIGNS.items()
        if sum(a != b for a, b in zip(sign, data, strict=False)) <= changed
    ]
    return key


def assert_paired(records, *, changed=0):
    """The parts of a record are of one record, though `changed` bytes of the tar are others."""
    for key, parts in records:
        owners = {owner(data, changed=changed) for data in parts.values()}
        assert len(owners) == 1
        if not changed:
            assert owners == {key}
            assert parts.items() <= WHOLE[key].items()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("faults") / "a.tar"


def check_truncated(path, name, cut):
    data, places = TARS[name]
    records, errors, faults = read_all(path, data[:cut])
    assert_paired(records)
    assert errors == 0
    if cut > places[-1].end:  # within the zeros of the end
        assert dict(records) == WHOLE
        assert len(faults) == (cut < places[-1].end + 512)
        return
    assert len(faults) == 1
    if name != "apart":
        begun = [place.row for place in places if place.data <= cut]
        assert records == list(WHOLE.items())[: max(begun, default=0)]


def check_flipped(path, name, byte, change):
    data, places = TARS[name]
    bad = bytearray(data)
    bad[byte] ^= change
    records, errors, faults = read_all(path, bytes(bad))
    assert_paired(records, changed=1)
    if any(place.data <= byte < place.stop for place in places):  # data have no checksum
        assert (len(records), errors, faults) == (RECORDS, 0, ())
        assert sum(parts != WHOLE[key] for key, parts in records) == 1
    elif name in ("ustar", "apart") and dict(records) != WHOLE:
        assert len(faults) == 1
        before = [place.row for place in places if place.data <= byte]
        if name == "ustar":
            assert records == list(WHOLE.items())[: before[-1] if before else 0]


def check_dropped(path, name, member):
    data, places = TARS[name]
    bad = data[: places[member].start] + data[places[member].end :]
    records, errors, faults = read_all(path, bad)
    assert_paired(records)
    assert (len(records), errors, faults) == (RECORDS, 0, ())
    assert sorted(len(parts) for _, parts in records) == [2] + [3] * (RECORDS - 1)


@pytest.mark.parametrize("name", TARS)
def test_without_faults_all_is_there(path, name):
    records, errors, faults = read_all(path, TARS[name][0])
    assert (dict(records), errors, faults) == (WHOLE, 0, ())


@pytest.mark.parametrize("name", TARS)
@settings(max_examples=40, derandomize=True, deadline=None)
@given(drawn=st.data())
def test_truncated_at_any_byte(path, name, drawn):
    check_truncated(path, name, drawn.draw(st.integers(0, len(TARS[name][0]))))


@pytest.mark.parametrize("name", TARS)
@settings(max_examples=60, derandomize=True, deadline=None)
@given(drawn=st.data())
def test_any_byte_changed(path, name, drawn):
    place = drawn.draw(st.integers(0, len(TARS[name][0]) - 1))
    check_flipped(path, name, place, drawn.draw(st.integers(1, 255)))


@pytest.mark.parametrize("name", TARS)
def test_any_member_dropped(path, name):
    for member in range(len(TARS[name][1])):
        check_dropped(path, name, member)


@pytest.mark.parametrize("name", TARS)
@settings(max_examples=40, derandomize=True, deadline=None)
@given(drawn=st.data())
def test_any_noise_is_an_error_or_a_fault(path, name, drawn):
    data = bytearray(TARS[name][0])
    for _ in range(drawn.draw(st.integers(1, 4))):
        start, noise = drawn.draw(st.integers(0, len(data))), drawn.draw(st.binary(max_size=700))
        data[start : start + drawn.draw(st.integers(0, 700))] = noise
    read_all(path, bytes(data))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ustar", "pax"])
def test_truncated_at_every_byte(path, name):
    for cut in range(TARS[name][1][-1].end + 1025):
        check_truncated(path, name, cut)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ustar", "pax"])
def test_every_byte_changed(path, name):
    for byte in range(TARS[name][1][-1].end + 1024):
        check_flipped(path, name, byte, 1 + byte % 255)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARS)
@settings(max_examples=3000, derandomize=True, deadline=None)
@given(drawn=st.data())
def test_much_noise(path, name, drawn):
    test_any_noise_is_an_error_or_a_fault.hypothesis.inner_test(path, name, drawn)
