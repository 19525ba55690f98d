"""Records of WebDataset tars, at random access."""

import logging
import os
from pathlib import Path
from typing import Any

from datarax.sources.files import FilesSource
from datarax.sources.limits import Limits
from datarax.sources.record import DecodeError, Fault, RawRecord, RecordError
from datarax.sources.tar_bytes import Bytes, open_bytes
from datarax.sources.tar_index import EMPTY, TarIndex, index_tar
from datarax.sources.tar_index_file import load_index, save_index
from datarax.sources.tar_unpack import compression_of, unpack

logger = logging.getLogger(__name__)

TOGETHER = 2**20  # bytes of a record that are read at once
GAP = 2**11  # bytes of headers between two members


class TarShard:
    """The records of one tar: members by key, in the order in which the keys first come.

    The key is a member's name up to the first dot of its last step, directories included (`./` and
    doubled slashes left out); the suffix is what follows that dot, in lower case. Members of one
    key are one record wherever they lie, also between those of others. Nothing is extracted:
    members are read at their offsets. The first to open a tar reads all its headers (100,000 in
    about 2 s) and keeps the index as `<path>.datarax-index`, in the cache directory where that
    cannot be written, or not at all; it is made anew when size, time or either end differ.

    What is not as it should be:

    - A link, device, pipe, sparse file or member of an unknown type, a suffix that a record has
      twice, a member beyond `limits.member_bytes`: the record is there, and `read` raises.
    - An absolute name, one with `..`, one without a suffix: in no record; listed in `faults` (the
      first 1000, then how many more).
    - Directories, and names with a step that begins with a dot: passed over.
    - GNU long names, PAX headers, V7, ustar: read.
    - A tar that is cut, or has a damaged header: the records before are there. The record that is
      cut (the last one, if it may have been incomplete) and the rest are not: that is a fault.
      Where members of one key lie apart, those before the cut may lack the ones behind it.
    - A tar without its end mark, or with anything but zeros behind it: a fault likewise.
    - An empty file: no records and a fault; a tar without members: no records.
    - A gzip or zstd shard, told by its first bytes: decompressed once to the cache directory; one
      that is damaged, cut, or more than `limits.unpacked_bytes`: no records and a fault.

    Tar has a checksum over headers alone: a byte changed in a long name or in data is not noticed.

    Args:
      path: a file or a URL.
      limits: on members; `None` is the usual ones.

    Raises:
      OSError: if the file cannot be read.
      ImportError: for a URL without fsspec, or zstd without zstandard.
    """

    def __init__(self, path: str | Path, *, limits: Limits | None = None) -> None:
        self.name = os.fspath(path)
        self.limits = Limits() if limits is None else limits
        self._bytes = open_bytes(self.name)
        lost: list[tuple[str, str]] = []
        start = self._bytes.read(0, min(4, self._bytes.size))
        if compression_of(start) is not None:
            try:
                self._bytes = open_bytes(unpack(self.name, limit=self.limits.unpacked_bytes))
            except DecodeError as error:
                lost.append(("", str(error)))
        self._index = EMPTY if lost else _index_of(self._bytes)
        self._places, self._count = self._index.places(), len(self._index)
        most = self._index.sizes.max(initial=0)
        self._may_refuse = bool(self._index.flaws.any() or most > self.limits.member_bytes)
        lost += self._index.lost
        self.faults = tuple(Fault(self.name, key, reason=reason) for key, reason in lost)

    def __len__(self) -> int:
        return self._count

    def read(self, row: int) -> RawRecord:
        """Record `row`: the bytes of its members by suffix.

        Raises:
          IndexError: if there is no such record.
          RecordError: if one of its members is refused.
          OSError: if the file cannot be read, or has changed.
        """
        if not 0 <= row < self._count:
            raise IndexError(f"record {row} of {self._count} in {self.name}")
        key, names, offsets, sizes = self._places(row)
        if self._may_refuse:
            self._refuse(row, key, names, sizes)
        return RawRecord(key, _read_parts(self._bytes, names, offsets, sizes))

    def identity(self) -> str:
        """Of the name without its folder, and all headers: the same on any host."""
        return f"{os.path.basename(self.name)} {self._index.headers}"

    def _refuse(self, row: int, key: str, names: list[str], sizes: list[int]) -> None:
        flaws = self._index.flaws_of(row)
        for name, size, flaw in zip(names, sizes, flaws, strict=True):
            if flaw:
                reason = f"is {flaw}, which is not read"
            elif size > (most := self.limits.member_bytes):
                reason = f"has {size} bytes, at most {most} (Limits.member_bytes)"
            else:
                continue
            raise RecordError(Fault(self.name, key, row, name, f"the member {reason}"))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_places"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._places = self._index.places()


class TarSource(FilesSource):
    """The records of WebDataset tars, as `fields` reads them; see `TarShard` for what is a record.

    The arguments and errors are those of `FilesSource`.

    Example:
      >>> import io, tarfile, tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     with tarfile.open(f"{folder}/0.tar", "w") as tar:
      ...         for name, data in [("7.json", b'{"score": 0.5}'), ("7.txt", b"a caption")]:
      ...             member = tarfile.TarInfo(name)
      ...             member.size = len(data)
      ...             tar.addfile(member, io.BytesIO(data))
      ...     fields = {"score": {"from": "json.score", "decode": "number"}}
      ...     source = TarSource(folder, fields=fields)
      ...     len(source), float(source[0].data["score"]), source[0].metadata["key"]
      (1, 0.5, '7')
    """

    open_shard = TarShard
    suffixes = (".tar", ".tar.gz", ".tgz", ".tar.zst")


def _index_of(content: Bytes) -> TarIndex:
    """The kept index of a tar, or one made now and kept if it can be."""
    index = load_index(content)
    if index is None:
        index = index_tar(content.reader(), content.size)
        place = save_index(index, content) or "not kept"
        logger.info("%s: %d records; the index is %s", content.path, len(index), place)
    return index


def _read_parts(
    content: Bytes, names: list[str], offsets: list[int], sizes: list[int]
) -> dict[str, bytes]:
    """Each member's bytes by name; in one read where they lie close together."""
    first, count = offsets[0], len(sizes)  # they are in the order of the tar
    length = offsets[-1] + sizes[-1] - first
    members = zip(names, offsets, sizes, strict=True)
    if count == 1 or length > TOGETHER or length > sum(sizes) + GAP * count:
        return {name: content.read(offset, size) for name, offset, size in members}
    data = content.read(first, length)
    return {name: data[a - first : a - first + size] for name, a, size in members}
