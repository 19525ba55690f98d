"""Records of Arrow files and streams."""

import bisect
import hashlib
import itertools
import os
import weakref
from pathlib import Path
from typing import Any

from datarax.sources.arrow_blocks import Block, block_of
from datarax.sources.arrow_cells import is_damage, require_pyarrow, row_parts
from datarax.sources.block_cache import BlockCache
from datarax.sources.files import FilesSource
from datarax.sources.limits import Limits
from datarax.sources.parquet import SHARED
from datarax.sources.paths import file_version, is_url, open_binary
from datarax.sources.record import DecodeError, Fault, RawRecord, RecordError

MAGIC = b"ARROW1\0\0"


class ArrowShard:
    """The rows of one Arrow file, of the file format or the stream format (as `datasets` writes).

    The parts are those of `ParquetShard`. A local file is mapped into memory, not read; the columns
    of a record batch are checked when the first of its rows is read.

    What is not as it should be:

    - A file that is cut: the whole record batches before the cut are there; the rest is a fault.
      That holds for the file format too, whose footer is lost then.
    - An empty file, or another format: no records and a fault. No rows: no records.
    - A record batch whose offsets lead out of it, or that cannot be decompressed: each of its rows
      raises. Arrow has no checksums: a changed byte of data is not noticed.
    - A cell beyond `limits.member_bytes`, or of a type that is not read: its row raises.

    Args:
      path: a file or a URL; what lies behind a URL is read whole.
      limits: on cells; `None` is the usual ones.
      cache: where checked batches are kept; `None` is one of 512 MiB for all shards.

    Raises:
      OSError: if the file cannot be read.
      ImportError: without `datarax[parquet]`, or for a URL without fsspec.
    """

    def __init__(
        self, path: str | Path, *, limits: Limits | None = None, cache: BlockCache | None = None
    ) -> None:
        require_pyarrow()
        self.name = os.fspath(path)
        self.limits = Limits() if limits is None else limits
        self.faults: tuple[Fault, ...] = ()
        self._cache = SHARED if cache is None else cache
        self._size, self._version = file_version(self.name)
        self._batches: list[Any] = []
        self._schema: Any = None
        self._read_batches()
        self._ends = list(itertools.accumulate(batch.num_rows for batch in self._batches))
        self._owner = object()
        weakref.finalize(self, self._cache.drop, self._owner)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, row: int) -> RawRecord:
        """Record `row`: the cells of its row by column.

        Raises:
          IndexError: if there is no such record.
          RecordError: if its batch is damaged, or a cell is refused.
          OSError: if the file cannot be read, or has changed.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"record {row} of {len(self)} in {self.name}")
        place = bisect.bisect_right(self._ends, row)
        try:
            block = self._cache.get((self._owner, place), lambda: self._check(place))
            batch, inside = block.locate(row - (self._ends[place - 1] if place else 0))
            key, parts = row_parts(
                batch,
                inside,
                schema=block.schema,
                folder=os.path.dirname(self.name),
                limits=self.limits,
            )
        except DecodeError as error:
            raise RecordError(Fault(self.name, str(row), row, reason=str(error))) from error
        return RawRecord(str(row) if key is None else key, parts)

    def identity(self) -> str:
        """Of the file's name without its folder, its size, and the rows of its batches."""
        text = f"{self._schema} {self._ends}"
        digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        return f"{os.path.basename(self.name)} {self._size} {digest}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.name, self.limits)

    def _read_batches(self) -> None:
        pa = require_pyarrow()
        if self._size == 0:
            self._lose("the file is empty")
            return
        source = self._open()
        is_file = source.read(len(MAGIC)) == MAGIC
        source.seek(len(MAGIC) if is_file else 0)  # the file format is a stream in a frame
        try:
            reader = pa.ipc.open_stream(source)
            self._schema = reader.schema
            while (batch := _next(reader)) is not None:
                self._batches.append(batch)
        except Exception as error:
            if not is_damage(error):
                raise
            self._lose(f"after {len(self._batches)} whole record batches: {_short(error)}")
            return
        if is_file and not _has_end(source, self._size):
            self._lose(f"after {len(self._batches)} whole record batches: the file is cut")

    def _open(self) -> Any:
        pa = require_pyarrow()
        if not is_url(self.name):
            return pa.memory_map(self.name)
        with open_binary(self.name) as file:
            return pa.BufferReader(file.read())

    def _lose(self, reason: str) -> None:
        self.faults = (*self.faults, Fault(self.name, reason=reason))

    def _check(self, place: int) -> tuple[Block, int]:
        if file_version(self.name) != (self._size, self._version):
            raise OSError(f"{self.name} has changed since it was opened first")
        try:
            block = block_of(self._schema, [self._batches[place]])
        except Exception as error:
            if not is_damage(error):
                raise
            raise DecodeError(f"record batch {place} is damaged: {_short(error)}") from error
        return block, block.size


class ArrowSource(FilesSource):
    """The records of Arrow files and streams, as `fields` reads them; see `ArrowShard`.

    The arguments and errors are those of `FilesSource`.

    Example:
      >>> import tempfile, pyarrow as pa
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     table = pa.table({"text": ["a", "b"], "score": [0.5, 1.5]})
      ...     with pa.OSFile(f"{folder}/0.arrow", "wb") as file:
      ...         with pa.ipc.new_stream(file, table.schema) as stream:
      ...             stream.write(table)
      ...     source = ArrowSource(folder)
      ...     len(source), float(source[1].data["score"])
      (2, 1.5)
    """

    open_shard = ArrowShard
    suffixes = (".arrow", ".arrows", ".ipc", ".feather")


def _next(reader: Any) -> Any:
    try:
        return reader.read_next_batch()
    except StopIteration:
        return None


def _has_end(source: Any, size: int) -> bool:
    """Whether the file format's own mark stands at the end."""
    mark = MAGIC.rstrip(b"\0")
    source.seek(max(0, size - len(mark)))
    return source.read(len(mark)) == mark


def _reopened(name: str, limits: Limits) -> ArrowShard:
    return ArrowShard(name, limits=limits)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
