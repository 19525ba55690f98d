"""Where the members of each record of a tar lie, as arrays: 25 bytes a member, and its key."""

import array
import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from datarax.sources.tar_headers import (
    DIRECTORY,
    FILE,
    KINDS,
    UNKNOWN,
    Member,
    Read,
    TarCut,
    read_members,
)

Places = Callable[[int], tuple[str, list[str], list[int], list[int]]]

TWICE = "there twice"
FLAWS = tuple(dict.fromkeys([FILE, *KINDS.values(), UNKNOWN, TWICE]))
_FLAW_OF = {flaw: place for place, flaw in enumerate(FLAWS)}
MOST_FAULTS = 1000


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TarIndex:
    """The members of `n` records, `m` in all; a record's members are in the order of the tar.

    Attributes:
      starts: int64 [n + 1]; those of record `i` are `starts[i]` to `starts[i + 1]`.
      offsets, sizes: int64 [m], in bytes.
      suffixes: int32 [m], each a place in `suffix_names`.
      flaws: uint8 [m], each a place in `FLAWS`; 0 can be read.
      keys: uint8, all keys end to end, as the tar has them.
      key_ends: int64 [n], where each ends in `keys`.
      suffix_names: those that there are.
      lost: keys (or names) and reasons of what is no record.
      headers: a digest of all headers: of the names, sizes and times of every member.
    """

    starts: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    suffixes: np.ndarray
    flaws: np.ndarray
    keys: np.ndarray
    key_ends: np.ndarray
    suffix_names: tuple[str, ...]
    lost: tuple[tuple[str, str], ...]
    headers: str = ""

    def __len__(self) -> int:
        return len(self.key_ends)

    def flaws_of(self, row: int) -> list[str]:
        """Of the members of a record: why each cannot be read, empty if it can."""
        flaws = self.flaws[self.starts[row] : self.starts[row + 1]].tolist()
        return [FLAWS[flaw] if flaw else "" for flaw in flaws]

    def places(self) -> Places:
        r"""A function from a record's number to its key and its members' suffixes, offsets, sizes.

        A key's bytes that are not UTF-8 are written as `\xff`.
        """
        # Views: a number of an array is an object of NumPy first, at four times the cost.
        starts, ends, keys = self.starts.data, self.key_ends.data, self.keys.data
        offsets, sizes, suffixes = self.offsets.data, self.sizes.data, self.suffixes.data
        name_of = self.suffix_names.__getitem__

        def place(row: int) -> tuple[str, list[str], list[int], list[int]]:
            first, last = starts[row], starts[row + 1]
            key = as_text(keys[ends[row - 1] if row else 0 : ends[row]])
            names = [*map(name_of, suffixes[first:last])]
            return key, names, offsets[first:last].tolist(), sizes[first:last].tolist()

        return place


def index_tar(read: Read, size: int) -> TarIndex:
    """Read every header of a tar of `size` bytes; see `TarShard` for what becomes of which member.

    Args:
      read: gives the bytes at an offset; exactly as many as are asked for, never beyond `size`.
    """
    table, digest = _Table(), hashlib.blake2b(digest_size=8)

    def read_header(offset: int, length: int) -> bytes:
        data = read(offset, length)
        digest.update(data)
        return data

    try:
        for member in read_members(read_header, size):
            table.add(member)
    except TarCut as cut:
        table.cut(cut)
    return dataclasses.replace(table.index(), headers=digest.hexdigest())


def split_name(name: bytes) -> tuple[bytes, str]:
    """The key and the suffix of a member; the suffix is empty for what is in no record.

    Raises:
      ValueError: if the name is refused, saying why.

    Example:
      >>> split_name(b"./train/0001.Seg.PNG"), split_name(b"train/.hidden.png")
      ((b'train/0001', 'seg.png'), (b'', ''))
    """
    if name.startswith(b"/"):
        raise ValueError("its name is absolute")
    steps = [step for step in name.split(b"/") if step not in (b"", b".")]
    if b".." in steps:
        raise ValueError("its name has `..`")
    if any(step.startswith(b".") for step in steps):
        return b"", ""
    base, _, suffix = steps.pop().partition(b".") if steps else (b"", b"", b"")
    if not suffix:
        raise ValueError("its name has no suffix")
    return b"/".join([*steps, base]), as_text(suffix).lower()


def as_text(name: bytes | memoryview) -> str:
    r"""UTF-8, and whatever is not as `\xff`."""
    return str(name, "utf-8", "backslashreplace")


class _Table:
    """What is known of the members so far, in arrays and not in objects."""

    def __init__(self) -> None:
        self.rows = array.array("q")
        self.offsets = array.array("q")
        self.sizes = array.array("q")
        self.suffixes = array.array("i")
        self.flaws = array.array("B")
        self.row_of: dict[bytes, int] = {}
        self.suffix_of: dict[str, int] = {}
        self.lost: list[tuple[str, str]] = []
        self.unnamed = 0
        self.dropped = -1

    def add(self, member: Member) -> None:
        """Take in the next member."""
        if member.kind == DIRECTORY:
            return
        try:
            key, suffix = split_name(member.name)
        except ValueError as error:
            self._lose(member.name, f"{error}: it is in no record")
            return
        if suffix:
            self.rows.append(self.row_of.setdefault(key, len(self.row_of)))
            self.offsets.append(member.offset)
            self.sizes.append(member.size)
            self.suffixes.append(self.suffix_of.setdefault(suffix, len(self.suffix_of)))
            self.flaws.append(_FLAW_OF[member.kind])

    def cut(self, cut: TarCut) -> None:
        """The record that is cut is lost: the named one, else the last, which may be incomplete."""
        key = None
        with contextlib.suppress(ValueError):
            key = split_name(cut.name)[0] or None if cut.name is not None else None
        if key is not None:
            self.dropped = self.row_of.get(key, -1)
        elif cut.within and self.rows:
            self.dropped = self.rows[-1]
            key = next(key for key, row in self.row_of.items() if row == self.dropped)
        self.lost.append(("" if key is None else as_text(key), cut.reason))

    def index(self) -> TarIndex:
        """The arrays, sorted by record."""
        rows = np.array(self.rows, np.int64)
        kept = rows != self.dropped
        order = np.argsort(rows[kept], kind="stable")
        rows = rows[kept][order]
        keys = [key for key, row in self.row_of.items() if row != self.dropped]
        suffixes = np.array(self.suffixes, np.int32)[kept][order]
        flaws = np.array(self.flaws, np.uint8)[kept][order]
        flaws[_repeated(rows, suffixes, texts=len(self.suffix_of))] = _FLAW_OF[TWICE]
        if self.unnamed:
            self.lost.append(("", f"{self.unnamed} more members are in no record"))
        return TarIndex(
            starts=np.append(np.flatnonzero(np.diff(rows, prepend=-1)), len(rows)),
            offsets=np.array(self.offsets, np.int64)[kept][order],
            sizes=np.array(self.sizes, np.int64)[kept][order],
            suffixes=suffixes,
            flaws=flaws,
            keys=np.frombuffer(b"".join(keys), np.uint8),
            key_ends=np.cumsum([len(key) for key in keys], dtype=np.int64),
            suffix_names=tuple(self.suffix_of),
            lost=tuple(self.lost),
        )

    def _lose(self, name: bytes, reason: str) -> None:
        if len(self.lost) < MOST_FAULTS:
            self.lost.append((as_text(name), reason))
        else:
            self.unnamed += 1


def _repeated(rows: np.ndarray, suffixes: np.ndarray, *, texts: int) -> np.ndarray:
    """Whether a member has the row and the suffix of another: bool [m]."""
    _, place, count = np.unique(rows * texts + suffixes, return_inverse=True, return_counts=True)
    return count[place] > 1


def check_index(index: TarIndex, size: int) -> None:
    """Raise a ValueError for an index that cannot be of a tar of `size` bytes."""
    members, texts = len(index.offsets), len(index.suffix_names)
    if not _all_equal(members, [index.sizes, index.suffixes, index.flaws]):
        raise ValueError("its arrays have different lengths")
    if len(index.starts) != len(index) + 1 or not _climbs(index.starts, members, least=1):
        raise ValueError("its records are not ranges of its members")
    if not _climbs(np.append(0, index.key_ends), len(index.keys), least=0):
        raise ValueError("its keys do not lie end to end")
    if members == 0:
        return
    outside = (index.offsets < 0) | (index.sizes < 0) | (index.sizes > size - index.offsets)
    if outside.any():
        raise ValueError("it points outside of the tar")
    if not 0 <= index.suffixes.min() <= index.suffixes.max() < texts:
        raise ValueError("it names a suffix that it lacks")
    if index.flaws.max() >= len(FLAWS):
        raise ValueError("it names a flaw that there is not")


def _all_equal(length: int, arrays: Sequence[np.ndarray]) -> bool:
    return all(len(array) == length for array in arrays)


def _climbs(ends: np.ndarray, last: int, *, least: int) -> bool:
    """Whether `ends` goes from 0 to `last` in steps of at least `least`."""
    return bool(ends[0] == 0 and ends[-1] == last and (np.diff(ends) >= least).all())


EMPTY = _Table().index()
