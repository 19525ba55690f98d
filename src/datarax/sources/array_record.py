"""Records of ArrayRecord files."""

import os
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgpack

from datarax.sources.arrow_cells import KEY
from datarax.sources.beside import check_size
from datarax.sources.files import FilesSource
from datarax.sources.limits import Limits
from datarax.sources.paths import file_version, is_url
from datarax.sources.record import DecodeError, Fault, RawRecord, RecordError

RANDOM_ACCESS = "readahead_buffer_size:0,max_parallelism:0"


class ArrayRecordShard:
    """The records of one ArrayRecord file, each a msgpack map from part names to values.

    Values are bytes, text, numbers, truth values, null, lists and maps; `__key__` is the record's
    key, else its number is. `datarax convert` writes such files.

    What is not as it should be:

    - A file that is cut or empty, or of another format: the library finds no records in it, or
      cannot open it; then there are none here, and a fault.
    - A record that is damaged (chunks have checksums), is no such map, or holds another type: it
      raises. A part beyond `limits.member_bytes` likewise.

    Args:
      path: a local file.
      limits: on parts; `None` is the usual ones.

    Raises:
      OSError: if the file cannot be read.
      ImportError: without `datarax[arrayrecord]`.
      ValueError: for a URL.
    """

    def __init__(self, path: str | Path, *, limits: Limits | None = None) -> None:
        self.name = os.fspath(path)
        self.limits = Limits() if limits is None else limits
        self.faults: tuple[Fault, ...] = ()
        if is_url(self.name):
            raise ValueError(f"{self.name}: ArrayRecord files are read from local disks alone")
        self._size, self._version = file_version(self.name)
        self._lock = threading.Lock()
        self._reader = self._open()
        self._count = 0 if self._reader is None else self._reader.num_records()
        if self._reader is not None and self._count == 0:
            self._lose("no records: the file is empty or cut, or of another format")

    def __len__(self) -> int:
        return self._count

    def read(self, row: int) -> RawRecord:
        """Record `row`: the values of its map.

        Raises:
          IndexError: if there is no such record.
          RecordError: if it cannot be read, or is no such map.
          OSError: if the file is gone, or has changed.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"record {row} of {len(self)} in {self.name}")
        try:
            parts = unpack_parts(self._bytes(row), limits=self.limits)
        except DecodeError as error:
            raise RecordError(Fault(self.name, str(row), row, reason=str(error))) from error
        key = parts.pop(KEY, None)
        return RawRecord(str(row) if key is None else str(key), parts)

    def identity(self) -> str:
        """Of the file's name without its folder, its size, its count, and its last bytes."""
        with open(self.name, "rb") as file:
            file.seek(max(0, self._size - 2**16))
            end = zlib.crc32(file.read())
        return f"{os.path.basename(self.name)} {self._size} {self._count} {end:08x}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.name, self.limits)

    def _open(self) -> Any:
        module = _require_array_record()
        try:
            return module.ArrayRecordReader(self.name, RANDOM_ACCESS)
        except (RuntimeError, ValueError) as error:
            self._lose(f"cannot be opened: {_short(error)}")
            return None

    def _lose(self, reason: str) -> None:
        self.faults = (*self.faults, Fault(self.name, reason=reason))

    def _bytes(self, row: int) -> bytes:
        if file_version(self.name) != (self._size, self._version):
            raise OSError(f"{self.name} has changed since it was opened first")
        try:
            with self._lock:
                (record,) = self._reader.read([row])
        except (RuntimeError, ValueError, IndexError) as error:
            raise DecodeError(f"cannot be read: {_short(error)}") from error
        return record


class ArrayRecordSource(FilesSource):
    """The records of ArrayRecord files, as `fields` reads them; see `ArrayRecordShard`.

    The arguments and errors are those of `FilesSource`.

    Example:
      >>> import msgpack, tempfile
      >>> from array_record.python.array_record_module import ArrayRecordWriter
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     writer = ArrayRecordWriter(f"{folder}/0.arrayrecord", "group_size:1")
      ...     _ = writer.write(msgpack.packb({"__key__": "7", "text": "a", "score": 0.5}))
      ...     writer.close()
      ...     source = ArrayRecordSource(folder)
      ...     source[0].metadata["key"], float(source[0].data["score"])
      ('7', 0.5)
    """

    open_shard = ArrayRecordShard
    suffixes = (".arrayrecord", ".array_record")


def unpack_parts(record: bytes, *, limits: Limits) -> dict[str, Any]:
    """The map that a record holds.

    Raises:
      DecodeError: if it is none, or one of its values is of another type or beyond the limits.
    """
    try:
        parts = msgpack.unpackb(record, raw=False, strict_map_key=True, ext_hook=_refuse)
    except DecodeError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        why = _short(error) or type(error).__name__
        raise DecodeError(f"is no msgpack map of parts: {why}") from error
    if not isinstance(parts, dict) or not all(isinstance(name, str) for name in parts):
        raise DecodeError(f"is no msgpack map of parts, but a {type(parts).__name__}")
    for name, value in parts.items():
        try:
            _check(value, limits)
        except DecodeError as error:
            raise DecodeError(f"{name}: {error}") from error
    return parts


def _check(value: Any, limits: Limits) -> None:
    if isinstance(value, bytes | str):
        check_size(len(value), limits)
    elif isinstance(value, list):
        for entry in value:
            _check(entry, limits)
    elif isinstance(value, Mapping):
        for entry in value.values():
            _check(entry, limits)
    elif not isinstance(value, bool | int | float | None):
        raise DecodeError(f"a value of type {type(value).__name__} is not read")


def _refuse(code: int, data: bytes) -> Any:
    raise DecodeError(f"msgpack's extension {code} is not read")


def _require_array_record() -> Any:
    try:
        from array_record.python import array_record_module
    except ImportError as error:
        raise ImportError("ArrayRecord files: pip install 'datarax[arrayrecord]'") from error
    return array_record_module


def _reopened(name: str, limits: Limits) -> ArrayRecordShard:
    return ArrayRecordShard(name, limits=limits)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
