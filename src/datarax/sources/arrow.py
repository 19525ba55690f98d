"""Records of Arrow files and streams."""

import bisect
import contextlib
import functools
import hashlib
import itertools
import os
import struct
import weakref
from pathlib import Path
from typing import Any

from datarax.sources.arrow_blocks import Block, TableRows, one_line
from datarax.sources.arrow_cells import is_damage, require_pyarrow
from datarax.sources.arrow_messages import (
    END,
    FRAME,
    MAGIC,
    Message,
    batches_in_footer,
    next_message,
)
from datarax.sources.block_cache import SHARED, BlockCache
from datarax.sources.files import FilesSource
from datarax.sources.limits import Limits
from datarax.sources.paths import file_version, is_url, open_binary
from datarax.sources.record import DecodeError, Fault, RawRecord, RecordError


class ArrowShard:
    """The rows of one Arrow file, of the file format or the stream format (as `datasets` writes).

    The parts are those of `ParquetShard`. Opening reads the headers alone. A record batch is mapped
    into memory, decompressed if it is compressed, and checked when the first of its rows is read:
    do not shorten a file that is in use.

    What is not as it should be:

    - A file that is cut: the whole record batches before the cut are there; the rest is a fault.
      That holds for the file format too, whose footer is lost then, and for a stream without its
      end mark.
    - An empty file, another format, two columns of one name: no records and a fault. No rows: no
      records.
    - A record batch whose buffers overlap or lead out of it: it ends what is there, like a cut.
    - A record batch whose values contradict each other, or that cannot be decompressed or would
      take more than `limits.unpacked_bytes`: each of its rows raises. Arrow has no checksums: a
      changed byte of data is not noticed.
    - A cell beyond `limits.member_bytes`: its row raises. A type that is not read: a fault.

    Args:
      path: a file or a URL; what lies behind a URL is read whole, and kept.
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
        self._content = self._download() if is_url(self.name) else None
        self._dictionaries: list[Message] = []
        self._batches: list[Message] = []
        self._rows: TableRows | None = None
        self._schema: Any = None
        self._first: Any = None
        self._digest = hashlib.blake2b(digest_size=8)
        if self._size == 0:
            self._lose("the file is empty")
        else:
            self._read_headers()
        self._ends = list(itertools.accumulate(batch.rows for batch in self._batches))
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
        if not 0 <= row < len(self) or self._rows is None:
            raise IndexError(f"record {row} of {len(self)} in {self.name}")
        place = bisect.bisect_right(self._ends, row)
        try:
            block = self._cache.get((self._owner, place), lambda: self._read_batch(place))
        except DecodeError as error:
            raise RecordError(Fault(self.name, str(row), row, reason=str(error))) from error
        inside = row - (self._ends[place - 1] if place else 0)
        return self._rows.record(block, inside, row=row)

    def identity(self) -> str:
        """Of the file's name without its folder, its size, and the headers of its messages."""
        return f"{os.path.basename(self.name)} {self._size} {self._digest.hexdigest()}"

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(type(self), limits=self.limits), (self.name,)

    def _lose(self, reason: str) -> None:
        self.faults = (*self.faults, Fault(self.name, reason=reason))

    def _download(self) -> Any:
        with open_binary(self.name) as file:
            return require_pyarrow().py_buffer(file.read())

    def _open(self) -> Any:
        pa = require_pyarrow()
        return pa.memory_map(self.name) if self._content is None else pa.BufferReader(self._content)

    def _read_headers(self) -> None:
        with self._open() as source:
            try:
                is_file = source.read(FRAME).rstrip(b"\0") == MAGIC
                source.seek(FRAME if is_file else 0)  # the file format is a stream in a frame
                stop, footer = self._footer(source) if is_file else (self._size, b"")
                marked = self._read_messages(source, stop)
                self._check_end(source.tell(), stop=stop, footer=footer, marked=marked)
            except Exception as error:
                if not is_damage(error):
                    raise
                self._lose(f"after {len(self._batches)} record batches: {one_line(error)}")

    def _footer(self, source: Any) -> tuple[int, bytes]:
        """Where the footer of the file format begins, and what is in it; the end if it lacks."""
        place = source.tell()
        source.seek(max(0, self._size - 10))
        length, mark = struct.unpack("<i6s", source.read(10).rjust(10, b"\0"))
        start = self._size - 10 - length
        footer = b""
        if mark == MAGIC and FRAME <= start < self._size - 10:
            source.seek(start)
            footer = source.read(length)
        source.seek(place)
        return (start, footer) if footer else (self._size, b"")

    def _read_messages(self, source: Any, stop: int) -> bool:
        """Take in the messages before `stop`; whether they end with a mark of the end."""
        pa = require_pyarrow()
        while (place := source.tell()) < stop:
            if (found := next_message(source)) is None:
                return bool(source.tell() > place)
            message, header = found
            if message.stop > stop or not self._is_due(message):
                raise DecodeError(f"a {message.kind} where there should be none")
            self._digest.update(header)
            if message.kind == "schema":
                source.seek(message.start)
                schema = pa.ipc.read_schema(pa.ipc.read_message(source))
                folder = os.path.dirname(self.name)
                self._rows = TableRows(self.name, schema, folder=folder, limits=self.limits)
                self._schema, self._first = schema, message
                self.faults = (*self.faults, *self._rows.faults)
            if message.kind == "record batch":
                self._batches.append(message)
            if message.kind == "dictionary":
                self._dictionaries.append(message)
        return False

    def _is_due(self, message: Message) -> bool:
        """Whether a message may come here: the schema first, dictionaries if it speaks of some."""
        if self._rows is None:
            return message.kind == "schema"
        if message.kind == "dictionary":
            return "dictionary<" in str(self._schema)
        return message.kind == "record batch"

    def _check_end(self, place: int, *, stop: int, footer: bytes, marked: bool) -> None:
        if self._rows is None:
            raise DecodeError("there is no schema")
        if place != stop or not (marked or footer):
            raise DecodeError("the file is cut here, or damaged: there is no end mark at its end")
        if footer and (listed := batches_in_footer(footer)) != len(self._batches):
            raise DecodeError(f"the footer lists {listed} batches: it is of another file")

    def _read_batch(self, place: int) -> tuple[Block, int]:
        if file_version(self.name) != (self._size, self._version):
            raise OSError(f"{self.name} has changed since it was opened first")
        message = self._batches[place]
        most = self.limits.unpacked_bytes
        if message.unpacked > most:
            said = f"takes {message.unpacked} bytes, at most {most} (Limits.unpacked_bytes)"
            raise DecodeError(f"record batch {place} {said}")
        try:
            assert self._rows is not None  # there are rows
            block = self._rows.block([self._decode(message)])
        except Exception as error:
            if not is_damage(error):
                raise
            raise DecodeError(f"record batch {place} is damaged: {one_line(error)}") from error
        if len(block) != message.rows:
            raise DecodeError(f"record batch {place} has {len(block)} rows, not {message.rows}")
        return block, block.size

    def _decode(self, batch: Message) -> Any:
        pa = require_pyarrow()
        before = [message for message in self._dictionaries if message.start < batch.start]
        with self._open() as source, contextlib.ExitStack() as stack:
            if not before:
                source.seek(batch.start)
                return pa.ipc.read_record_batch(pa.ipc.read_message(source), self._schema)
            parts = []  # pyarrow takes dictionaries from streams alone
            for message in [self._first, *before, batch]:
                source.seek(message.start)
                parts.append(source.read(message.stop - message.start))
            reader = stack.enter_context(pa.ipc.open_stream(b"".join(parts) + END))
            return reader.read_next_batch()


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
