"""Records of ArrayRecord files."""

import functools
import os
import re
import threading
import weakref
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import get_ident
from time import monotonic
from typing import Any

import msgpack

from datarax.sources.arrow_blocks import one_line
from datarax.sources.beside import check_size
from datarax.sources.files import FilesSource
from datarax.sources.limits import Limits
from datarax.sources.paths import file_version, is_url, open_binary
from datarax.sources.record import DecodeError, Fault, RawRecord, RecordError
from datarax.sources.row_key import KEY, key_of
from datarax.sources.watch import Watch

RANDOM_ACCESS = "readahead_buffer_size:0,max_parallelism:0"
Reader = tuple[Callable[[int], None], Callable[..., Any]]  # its methods, seek and read
LARGE = 2**19  # bytes of a record: a reader that holds one is not kept
PLAIN = (bytes, str)
MOST_COUNTED = 15  # names of a map, in msgpack's shortest form
MOST_OPEN = 512  # readers, about; one that is in use is closed after it
SYSTEM = re.compile(r"\b[a-z]\w*\(\) failed: ")  # how the library tells of a call to the system

_holders: "weakref.WeakSet[ArrayRecordShard]" = weakref.WeakSet()
_holders_lock = threading.Lock()


class ArrayRecordShard:
    """The records of one ArrayRecord file, each a msgpack map from part names to values.

    Values are bytes, text, numbers, truth values, null, lists and maps; `__key__` is the record's
    key, else its number is. `datarax convert` writes such files.

    What is not as it should be:

    - A file that is cut or empty, or of another format: no records and a fault. (The library counts
      0 records in many of them, and is not "ok": so a file that truly has none is told from them,
      and is no fault.)
    - A record that is damaged (chunks have checksums), is no such map, has a name twice or another
      type: it raises. A part beyond `limits.member_bytes`, or that is nested deeper than
      `limits.json_depth`, likewise.

    Args:
      path: a local file.
      limits: on parts; `None` is the usual ones.

    Attributes:
      readers: those that are kept open, by thread.
      watch: when it is to be asked whether the file is still the same.

    Raises:
      OSError: if the file cannot be read.
      ImportError: without `datarax[arrayrecord]`.
      ValueError: for a URL.
    """

    def __init__(self, path: str | Path, *, limits: Limits | None = None) -> None:
        _require_array_record()
        self.name = os.fspath(path)
        self.limits = Limits() if limits is None else limits
        self.faults: tuple[Fault, ...] = ()
        if is_url(self.name):
            raise ValueError(f"{self.name}: ArrayRecord files are read from local disks alone")
        self._size, self._version = file_version(self.name)
        self.watch = Watch()
        with open_binary(self.name) as file:
            file.seek(max(0, self._size - 2**16))
            self._end = zlib.crc32(file.read())
        self.readers: dict[int, Reader] = {}
        self._most = self.limits.member_bytes
        self._count, self._seeks = 0, False
        try:
            self._ask_count()
        except DecodeError as error:
            self.faults = (Fault(self.name, reason=str(error)),)

    def __len__(self) -> int:
        return self._count

    def read(self, row: int) -> RawRecord:
        """Record `row`: the values of its map.

        Raises:
          IndexError: if there is no such record.
          RecordError: if it cannot be read, or is no such map.
          OSError: if the file is gone, or has changed, which is asked once a second.
        """
        if not 0 <= row < self._count:
            raise IndexError(f"record {row} of {self._count} in {self.name}")
        if monotonic() >= self.watch.due:
            self.watch.ask(self._check_version)
        key, field = str(row), ""
        try:
            # Threads must not share a reader. Nor do they hand it on, which cost up to 2 % of their
            # speed; to read in a function of its own cost 1 %.
            thread = get_ident()
            seek, read = self.readers.get(thread) or self._new_reader(thread)
            try:
                if self._seeks:  # in two thirds of the time of `read([row])`
                    seek(row)
                    record = read()
                    if len(record) > LARGE:  # it would keep its last record
                        self.readers.pop(thread, None)
                else:
                    (record,) = read([row])
            except BaseException as error:
                self.readers.pop(thread, None)
                if isinstance(error, RuntimeError | ValueError | IndexError):
                    raise self._damage(error, "cannot be read") from error
                raise
            parts = _flat_parts(record, self._most)
            is_flat = parts is not None
            if parts is None:
                parts = unpack_parts(record)
            if (given := parts.pop(KEY, None)) is not None:
                field = KEY
                key = key_of(given, row=row)
            if not is_flat:
                for name, value in parts.items():
                    field = name
                    _check(value, limits=self.limits, depth=0)
        except DecodeError as error:
            raise RecordError(Fault(self.name, key, row, field, str(error))) from error
        return RawRecord(key, parts)

    def identity(self) -> str:
        """Of the file's name without its folder, its size, its count, and its last 64 KiB."""
        return f"{os.path.basename(self.name)} {self._size} {self._count} {self._end:08x}"

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(type(self), limits=self.limits), (self.name,)

    def _ask_count(self) -> None:
        reader = self._open()
        self._count = reader.num_records()
        alone = "group_size:1," in f"{reader.writer_options_string()},"
        self._seeks = alone and self._size < self._count * LARGE // 4
        reader.close()

    def _new_reader(self, thread: int) -> Reader:
        _make_room(self)
        reader = self._open()
        made = self.readers[thread] = reader.seek, reader.read
        return made

    def _open(self) -> Any:
        if self._size == 0:
            raise DecodeError("the file is empty")
        try:
            reader = _require_array_record().ArrayRecordReader(self.name, RANDOM_ACCESS)
            if not reader.ok():
                reader.close()  # raises what is wrong
                raise DecodeError("cannot be opened: it is cut, or of another format")
        except (RuntimeError, ValueError) as error:
            raise self._damage(error, "cannot be opened") from error
        return reader

    def _check_version(self) -> None:
        if file_version(self.name) != (self._size, self._version):
            raise OSError(f"{self.name} has changed since it was opened first")

    def _damage(self, error: Exception, what: str) -> DecodeError:
        """The error of a record, unless the library speaks of the system.

        Raises:
          OSError: if it does.
        """
        if isinstance(error, DecodeError):
            return error
        if SYSTEM.search(str(error)):
            raise OSError(f"{self.name} {what}: {one_line(error)}") from error
        return DecodeError(f"{what}: {one_line(error)}")


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


def _make_room(shard: ArrayRecordShard) -> None:
    """Before `shard` keeps one more reader: close those of threads that have ended.

    And of too many, those of the shard that was read least lately, to the second.
    """
    living = {thread.ident for thread in threading.enumerate()}
    with _holders_lock:
        _holders.add(shard)
        holders = [other for other in _holders if other.readers]
        for other in holders:
            for thread in list(other.readers):
                if thread not in living:
                    other.readers.pop(thread, None)
        if sum(len(other.readers) for other in holders) >= MOST_OPEN:
            min(holders, key=lambda other: other.watch.due).readers.clear()


def unpack_parts(record: bytes) -> dict[str, Any]:
    """The map that a record holds, its values yet to be checked.

    Raises:
      DecodeError: if it is none, or has a name twice.
    """
    try:
        parts = msgpack.unpackb(record, ext_hook=_refuse, object_pairs_hook=_map)
    except DecodeError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DecodeError(f"is no msgpack map of parts: {one_line(error)}") from error
    if not isinstance(parts, dict) or not set(map(type, parts)) <= {str}:
        raise DecodeError(f"is no msgpack map of parts, but a {type(parts).__name__}")
    return parts


def _flat_parts(record: bytes, most: int) -> dict[str, Any] | None:
    """A map of bytes and texts within the limit, in two thirds of the time; `None` of others."""
    try:
        parts = msgpack.unpackb(record)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    # the first byte counts names, if they are few: none is there twice
    if type(parts) is not dict or len(parts) > MOST_COUNTED or record[0] != 0x80 | len(parts):
        return None
    for name, value in parts.items():
        if type(name) is not str or type(value) not in PLAIN or len(value) > most:
            return None
    return parts


def _check(value: Any, *, limits: Limits, depth: int) -> None:
    if depth > limits.json_depth:
        raise DecodeError(f"is nested deeper than {limits.json_depth} (Limits.json_depth)")
    if isinstance(value, bytes | str):
        check_size(len(value), limits)
    elif isinstance(value, list):
        check_size(8 * len(value), limits)
        for entry in value:
            _check(entry, limits=limits, depth=depth + 1)
    elif isinstance(value, Mapping):
        for entry in value.values():
            _check(entry, limits=limits, depth=depth + 1)
    elif not isinstance(value, bool | int | float | None):
        raise DecodeError(f"a value of type {type(value).__name__} is not read")


def _map(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise DecodeError("a map has a name twice")
    return found


def _refuse(code: int, data: bytes) -> Any:
    raise DecodeError(f"msgpack's extension {code} is not read")


def _require_array_record() -> Any:
    try:
        from array_record.python import array_record_module
    except ImportError as error:
        raise ImportError("ArrayRecord files: pip install 'datarax[arrayrecord]'") from error
    return array_record_module
