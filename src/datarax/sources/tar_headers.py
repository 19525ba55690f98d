"""The members of a tar, one header after the other; nothing but headers is read.

`tarfile.TarInfo.frombuf` reads a block and proves its checksum. What lies between blocks is read
here, as `tarfile.TarFile` follows sizes backwards, recurses, and allocates what a header asks for.
"""

import dataclasses
import tarfile
from collections.abc import Callable, Iterator

BLOCK = 512
MOST_HEADER_BYTES = 2**20  # of a long name or a PAX header
MOST_TAIL_BYTES = 2**24  # of zeros behind the end

FILE, SPARSE, UNKNOWN = "a file", "a sparse file", "of an unknown type"
KINDS = {
    tarfile.REGTYPE: FILE,
    tarfile.AREGTYPE: FILE,
    tarfile.CONTTYPE: FILE,
    tarfile.DIRTYPE: "a directory",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.GNUTYPE_SPARSE: SPARSE,
}
DIRECTORY = KINDS[tarfile.DIRTYPE]
_WITHOUT_DATA = set(KINDS.values()) - {FILE, SPARSE}
_PAX_TYPES = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
_GNU_TYPES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)

Read = Callable[[int, int], bytes]  # (offset, size): exactly so many bytes, within the file


@dataclasses.dataclass(frozen=True)
class Member:
    """What a header says: the name's bytes, one of `KINDS` or `UNKNOWN`, where its data lie."""

    name: bytes
    kind: str
    offset: int
    size: int


class TarCut(Exception):
    """From here on nothing can be read.

    Attributes:
      reason: one line.
      name: of the member that is cut; `None` if that is not known.
      within: whether the member before may have had others of its record after it.
    """

    def __init__(self, reason: str, *, name: bytes | None = None, within: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.name = name
        self.within = within


def read_members(read: Read, size: int) -> Iterator[Member]:
    """Every member of a tar of `size` bytes, in order, as V7, ustar, GNU and PAX headers say.

    Raises:
      TarCut: where the tar ends without its end, or a header cannot be read. A byte changed in a
        header is always found; one in a long name or in PAX records may not be, as tar has no
        checksum over those.
    """
    if size == 0:
        raise TarCut("the file is empty")
    place = 0
    extended = _Extended()
    while True:
        block = _read_block(read, place, size)
        if not block.strip(b"\0"):
            if extended.pending:
                raise TarCut(f"the member of the header at byte {place} is missing")
            _check_end(read, place, size)
            return
        kind, header = block[156:157], _parse(block, place)
        place += BLOCK
        if kind in _GNU_TYPES or kind in _PAX_TYPES:
            body = _read_body(read, place, header.size, size)
            extended.add(kind, body, place)
            place += _blocks(header.size)
            continue
        if kind == tarfile.GNUTYPE_SPARSE:
            place = _skip_sparse_map(read, place, block, size)
        member = extended.apply(header, kind, place)
        if member.offset + member.size > size:
            raise TarCut(_cut_at(size), name=member.name)
        yield member
        place += _blocks(member.size)
        extended = _Extended()


class _Extended:
    """What the headers before a member's own say of it."""

    def __init__(self) -> None:
        self.name: bytes | None = None
        self.size: int | None = None
        self.sparse = False
        self.pending = False

    def add(self, kind: bytes, body: bytes, place: int) -> None:
        """Take in a long name or PAX records."""
        self.pending |= kind != tarfile.XGLTYPE
        if kind == tarfile.GNUTYPE_LONGNAME:
            self.name = body.split(b"\0", 1)[0]
        elif kind in _PAX_TYPES:
            records = _parse_pax(body, place)
            if kind != tarfile.XGLTYPE:
                self._add_pax(records, place)
            elif records.keys() & {b"path", b"size", b"GNU.sparse.name"}:
                raise TarCut(f"the global header at byte {place} names or sizes every member")

    def _add_pax(self, records: dict[bytes, bytes], place: int) -> None:
        self.name = records.get(b"GNU.sparse.name") or records.get(b"path") or self.name
        self.sparse |= any(key.startswith(b"GNU.sparse.") for key in records)
        if size := records.get(b"size"):
            if not size.isdigit() or len(size) > 18:
                raise TarCut(f"the PAX header at byte {place} has a size that is no number")
            self.size = int(size)

    def apply(self, header: tarfile.TarInfo, kind: bytes, place: int) -> Member:
        """The member of this header."""
        name = header.name.encode("utf-8", "surrogateescape") if self.name is None else self.name
        what = KINDS.get(kind, UNKNOWN)
        what = SPARSE if self.sparse and what == FILE else what
        directory = name.endswith(b"/") if self.name is not None else header.isdir()
        if kind == tarfile.AREGTYPE and directory:  # of V7: a file whose name ends in a slash
            what = DIRECTORY
        size = header.size if self.size is None else self.size
        return Member(name, what, place, 0 if what in _WITHOUT_DATA else size)


def _parse(block: bytes, place: int) -> tarfile.TarInfo:
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise TarCut(f"no header of a tar at byte {place}: {error}") from error
    if header.size < 0:
        raise TarCut(f"the header at byte {place} has a negative size")
    return header


def _read_block(read: Read, place: int, size: int) -> bytes:
    if place == size:
        raise TarCut(f"the tar has no end mark: it may be cut at byte {size}")
    if place + BLOCK > size:
        begun = place < size and not read(place, size - place).strip(b"\0")  # zeros: the end mark
        raise TarCut(_cut_at(size), within=not begun)
    return read(place, BLOCK)


def _read_body(read: Read, place: int, length: int, size: int) -> bytes:
    if length > MOST_HEADER_BYTES:
        raise TarCut(f"the header at byte {place} has {length} bytes, at most {MOST_HEADER_BYTES}")
    if place + length > size:
        raise TarCut(_cut_at(size))
    return read(place, length)


def _skip_sparse_map(read: Read, place: int, block: bytes, size: int) -> int:
    more = block[482]
    while more:
        more = _read_block(read, place, size)[504]
        place += BLOCK
    return place


def _parse_pax(body: bytes, place: int) -> dict[bytes, bytes]:
    r"""Records `b"%d %s=%s\n"`, each led by its own length."""
    records: dict[bytes, bytes] = {}
    start = 0
    while start < len(body):
        digits, blank, _ = body[start : start + 20].partition(b" ")
        end = start + int(digits) if blank and digits.isdigit() else 0
        if end <= start or body[end - 1 : end] != b"\n":
            if not body[start:].strip(b"\0"):
                break
            raise TarCut(f"the PAX header at byte {place} is damaged")
        key, _, value = body[start + len(digits) + 1 : end - 1].partition(b"=")
        records[key] = value
        start = end
    return records


def _check_end(read: Read, place: int, size: int) -> None:
    """Refuse what lies behind the block of zeros at `place`, which ends the tar."""
    tail = min(size, place + MOST_TAIL_BYTES)
    blocks = 0
    for start in range(place, tail, 2**20):
        piece = read(start, min(2**20, tail - start))
        if start == place:
            blocks = 2 if not piece[BLOCK : 2 * BLOCK].strip(b"\0") else 1
        if piece.strip(b"\0"):
            break
    else:
        if tail == size:
            return
    lost = f"{size - place} bytes from byte {place} on, behind the end of the tar, are not read"
    raise TarCut(lost, within=blocks < 2)


def _blocks(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _cut_at(size: int) -> str:
    return f"the tar is cut at byte {size}"
