import io
import os
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tar_samples import special, tar_bytes

from datarax.sources.tar_headers import (
    MOST_HEADER_BYTES,
    MOST_TAIL_BYTES,
    SPARSE,
    UNKNOWN,
    TarCut,
    read_members,
)

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
LONG = "d/" * 30 + "x" * 90 + ".png"


def members(data):
    """The members of a tar in memory; every read must lie within it."""

    def read(offset, size):
        assert 0 <= offset <= offset + size <= len(data)
        return data[offset : offset + size]

    return read_members(read, len(data))


def by_tarfile(data):
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        return [
            (member.name.encode("utf-8", "surrogateescape"), member.offset_data, member.size)
            for member in tar
        ]


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=150)
entries = st.lists(st.tuples(names.filter(lambda n: n.strip("/")), st.binary(max_size=1100)))


@pytest.mark.parametrize("format", FORMATS[1:])
@settings(max_examples=40, derandomize=True, deadline=None)
@given(listed=entries)
def test_members_are_those_that_tarfile_finds(format, listed):
    data = tar_bytes([(name.rstrip("/"), body) for name, body in listed], format=format)
    found = list(members(data))
    assert [(each.name, each.offset, each.size) for each in found] == by_tarfile(data)
    for each, (_, body) in zip(found, listed, strict=True):
        assert data[each.offset : each.offset + each.size] == body


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["a.png", "d/" * 40 + "a.png", LONG, "x" * 300, "ä/ö.png"])
def test_long_names(format, name):
    if format == tarfile.USTAR_FORMAT and len(name) > 255:
        pytest.skip("ustar has no such names")
    if format == tarfile.USTAR_FORMAT and name == LONG:
        name = "d/" * 30 + "x" * 80 + ".png"
    data = tar_bytes([("0.txt", b"before"), (name, b"data"), ("1.txt", b"behind")], format=format)
    assert [each.name for each in members(data)] == [b"0.txt", name.encode(), b"1.txt"]


def test_members_are_those_of_gnu_tar(tmp_path):
    for name in ("a.png", LONG):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    os.symlink("a.png", tmp_path / "in" / "link")
    os.link(tmp_path / "in" / "a.png", tmp_path / "in" / "hard")
    os.mkfifo(tmp_path / "in" / "pipe")
    for format in ("v7", "oldgnu", "gnu", "ustar", "posix"):
        names = ["a.png", "link", "hard", "pipe"]
        names += [] if format in ("v7", "ustar") else [LONG]
        target = tmp_path / f"{format}.tar"
        command = ["tar", f"--format={format}", "-C", tmp_path / "in", "-cf", target]
        names = [name for name in names if name != "pipe" or format != "v7"]
        subprocess.run([*command, *names], check=True)
        found = list(members(target.read_bytes()))
        assert [each.name.decode() for each in found] == names
        kinds = {"a.png": "a file", "link": "a symbolic link", "hard": "a hard link"}
        kinds |= {"pipe": "a named pipe", LONG: "a file"}
        assert [each.kind for each in found] == [kinds[name] for name in names]


@pytest.mark.parametrize("version", ["gnu", "0.0", "0.1", "1.0"])
def test_sparse_files_are_told_and_passed(tmp_path, version):
    path = tmp_path / "s.bin"
    with path.open("wb") as file:
        for place in range(30):  # more pieces than one header of the old format holds
            file.seek(place * 2**17)
            file.write(b"piece")
    (tmp_path / "z.txt").write_bytes(b"behind")
    format = ["--format=posix", f"--sparse-version={version}"]
    format = ["--format=gnu"] if version == "gnu" else format
    command = ["tar", "-C", tmp_path, *format, "-S", "-cf", tmp_path / "a.tar"]
    subprocess.run([*command, "s.bin", "z.txt"], check=True)
    data = (tmp_path / "a.tar").read_bytes()
    assert len(data) < 2**20
    sparse, behind = members(data)
    assert (sparse.name, sparse.kind) == (b"s.bin", SPARSE)
    assert data[behind.offset : behind.offset + behind.size] == b"behind"


def test_kinds_other_than_files_have_no_data():
    kinds = {
        tarfile.DIRTYPE: "a directory",
        tarfile.SYMTYPE: "a symbolic link",
        tarfile.LNKTYPE: "a hard link",
        tarfile.CHRTYPE: "a character device",
        tarfile.BLKTYPE: "a block device",
        tarfile.FIFOTYPE: "a named pipe",
        b"V": UNKNOWN,
        tarfile.CONTTYPE: "a file",
    }
    data = tar_bytes([special("x", kind) for kind in kinds] + [("y", b"data")])
    found = list(members(data))
    assert [each.kind for each in found] == [*kinds.values(), "a file"]
    assert [each.size for each in found] == [0] * len(kinds) + [4]


def test_a_name_of_v7_that_ends_in_a_slash_is_a_directory_unless_it_is_only_cut_there():
    old = tarfile.TarInfo("d/")
    old.type = tarfile.AREGTYPE
    long = tarfile.TarInfo("x" * 99 + "/y.txt")
    long.type = tarfile.AREGTYPE
    data = tar_bytes([(old, b""), (long, b"data")], format=tarfile.GNU_FORMAT)
    assert [each.kind for each in members(data)] == ["a directory", "a file"]


def header(name=b"a.txt", *, kind=b"0", size=b"00000000004\0", body=b"data"):
    """A block with whatever in it, and the right checksum."""
    block = bytearray(tarfile.TarInfo(name.decode()).tobuf(tarfile.USTAR_FORMAT))
    block[124:136], block[156:157] = size, kind
    block[148:156] = b"%06o\0 " % (256 + sum(block[:148]) + sum(block[156:]))
    return bytes(block) + body + bytes(-len(body) % 512)


END = bytes(1024)
GOOD = header()


def pax(records, kind=b"x"):
    return header(b"pax", kind=kind, size=b"%011o\0" % len(records), body=records)


CUTS = [
    (b"", 0, "the file is empty"),
    (b"no tar", 0, "cut at byte 6"),
    (b"no tar" * 100, 0, "no header of a tar at byte 0: invalid header"),
    (GOOD, 1, "no end mark: it may be cut at byte 1024"),
    (GOOD + GOOD[:511], 1, "cut at byte 1535"),
    (GOOD + GOOD[:515], 1, "cut at byte 1539"),
    (GOOD + b"\1" + GOOD[1:] + END, 1, "no header of a tar at byte 1024: bad checksum"),
    (GOOD + bytes(512) + GOOD + END, 1, "2560 bytes from byte 1024 on, behind the end"),
    (GOOD + END + GOOD + END, 1, "3072 bytes from byte 1024 on, behind the end"),
    (GOOD + bytes(MOST_TAIL_BYTES + 512), 1, "behind the end of the tar, are not read"),
    (header(size=b"-0000000004\0") + END, 0, "negative size"),
    (header(size=b"\xff" * 12) + END, 0, "negative size"),
    (header(size=b"\x80" + b"\xff" * 11) + END, 0, "cut at byte 2048"),
    (header(size=b"99999999999\0") + END, 0, "no header of a tar at byte 0: invalid header"),
    (header(kind=b"L", size=b"\x80" + b"\xff" * 11) + END, 0, "at most 1048576"),
    (header(kind=b"L", size=b"%011o\0" % (MOST_HEADER_BYTES + 1)) + END, 0, "at most 1048576"),
    (header(kind=b"L", size=b"00000077777\0") + END, 0, "cut at byte 2048"),
    (header(kind=b"L", body=b"name") + END, 0, "the member of the header at byte 1024 is missing"),
    (header(kind=b"K", body=b"name") + pax(b"9 c=text\n", b"g") + END, 0, "is missing"),
    (pax(b"12 size=12x\n") + GOOD + END, 0, "a size that is no number"),
    (pax(b"14 size=99999\n") + GOOD + END, 0, "cut at byte"),
    (pax(b"99 path=b.txt\n") + GOOD + END, 0, "PAX header at byte 512 is damaged"),
    (pax(b"0 path=b.txt\n") + GOOD + END, 0, "PAX header at byte 512 is damaged"),
    (pax(b"14 path=b.txt\n0 path=c.txt\n") + GOOD + END, 0, "PAX header at byte 512 is damaged"),
    (pax(b"no records") + GOOD + END, 0, "PAX header at byte 512 is damaged"),
    (pax(b"7" * 9000) + GOOD + END, 0, "PAX header at byte 512 is damaged"),
    (pax(b"14 path=b.txt\n", b"g") + GOOD + END, 0, "names or sizes every member"),
]


@pytest.mark.parametrize(("data", "before", "reason"), CUTS, ids=[cut[2] for cut in CUTS])
def test_where_reading_ends(data, before, reason):
    found, walk = [], members(data)
    with pytest.raises(TarCut, match=reason):
        found.extend(walk)
    assert len(found) == before


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (END, []),
        (bytes(512), []),
        (GOOD + bytes(512), [b"a.txt"]),
        (GOOD + bytes(10240), [b"a.txt"]),
        (pax(b"14 path=b.txt\n") + GOOD + END, [b"b.txt"]),
        (pax(b"14 path=b.txt\n" + bytes(20)) + GOOD + GOOD + END, [b"b.txt", b"a.txt"]),
        (pax(b"14 path=\xff=\n.x\n") + GOOD + END, [b"\xff=\n.x"]),
        (pax(b"9 c=text\n", b"g") + GOOD + END, [b"a.txt"]),
        (header(kind=b"L", body=b"c\0xt") + GOOD + END, [b"c"]),
        (header(kind=b"2", body=b"") + GOOD + END, [b"a.txt", b"a.txt"]),  # a link has no data
        (header(b"a\xff.txt".decode("latin1").encode()) + END, ["aÿ.txt".encode()]),
    ],
)
def test_what_is_read(data, names):
    assert [member.name for member in members(data)] == names


def test_ten_thousand_headers_before_a_member_do_not_recurse():
    data = header(kind=b"L", body=b"name") * 10_000 + GOOD + END
    assert [member.name for member in members(data)] == [b"name"]


def test_a_cut_says_whether_the_record_before_may_go_on():
    cases = [
        (GOOD, None, True),
        (GOOD + bytes(100), None, False),
        (GOOD + GOOD[:100], None, True),
        (GOOD + header(b"b.txt")[:514], b"b.txt", True),
        (GOOD + END + GOOD, None, False),
        (GOOD + bytes(512) + GOOD, None, True),
    ]
    for data, name, within in cases:
        with pytest.raises(TarCut) as cut:
            list(members(data))
        assert (cut.value.name, cut.value.within) == (name, within)
