"""Records as an ArrayRecord."""

import contextlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datarax.conversion.plain_values import plain, refusal
from datarax.sources.record import RawRecord

KEY = "__key__"


def write_array_record(path: Path, records: Iterable[RawRecord]) -> None:
    """An ArrayRecord of `records` at `path`, whole or not at all.

    Each is a msgpack map: `__key__`, then the parts in their order.

    Raises:
      ValueError: naming the record, if msgpack cannot hold it or a part is called `__key__`.
      ImportError: without `datarax[arrayrecord]`.
      OSError: if the file cannot be written.
    """
    module = require_array_record()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    try:
        _fill(module, name, records)
        with open(name, "rb") as file:
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def pack(record: RawRecord) -> bytes:
    """A record as `ArrayRecordShard` reads it.

    Raises:
      ValueError: naming the record, if msgpack cannot hold it.
    """
    import msgpack

    if KEY in record.parts:
        raise refusal(record, KEY, "the name is taken by the key")
    values = {KEY: record.key}
    try:
        values |= {part: plain(value) for part, value in record.parts.items()}
        return bytes(msgpack.packb(values, use_bin_type=True))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"record {record.key!r} cannot be msgpack: {error}") from error


def require_array_record() -> Any:
    """The module that writes ArrayRecords.

    Raises:
      ImportError: if it is not installed.
    """
    try:
        from array_record.python import array_record_module
    except ImportError as error:
        raise ImportError("to write ArrayRecord: pip install 'datarax[arrayrecord]'") from error
    return array_record_module


def _fill(module: Any, name: str, records: Iterable[RawRecord]) -> None:
    """The library knows failures of the system as RuntimeErrors."""
    try:
        writer = module.ArrayRecordWriter(name, "group_size:1")
    except RuntimeError as error:
        raise OSError(f"{name}: {error}") from error
    try:
        for record in records:
            data = pack(record)
            try:
                writer.write(data)
            except RuntimeError as error:
                raise OSError(f"{name}: {error}") from error
    except BaseException:
        with contextlib.suppress(RuntimeError):
            writer.close()
        raise
    try:
        writer.close()
    except RuntimeError as error:
        raise OSError(f"{name}: {error}") from error
