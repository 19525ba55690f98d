"""From a row of an Arrow table to the parts of a record."""

import datetime as dt
import decimal
from collections.abc import Mapping
from typing import Any

import numpy as np

from datarax.sources.beside import check_size, read_beside
from datarax.sources.limits import Limits
from datarax.sources.record import DecodeError

KEY = "__key__"
FILE = {"bytes", "path"}  # the struct of Hugging Face's images and sounds


def require_pyarrow() -> Any:
    """The module `pyarrow`.

    Raises:
      ImportError: if it is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise ImportError("Parquet and Arrow files: pip install 'datarax[parquet]'") from error
    return pa


def is_damage(error: BaseException) -> bool:
    """Whether pyarrow speaks of the content of a file, and not of the system.

    It raises OSError, without a number, for bytes that it cannot decompress or decode.
    """
    pa = require_pyarrow()
    if isinstance(error, OSError):
        return error.errno is None and not isinstance(error, MemoryError)
    return isinstance(error, pa.ArrowException | ValueError | OverflowError | IndexError)


def as_binary(column: Any) -> Any:
    """A chunk with its text as bytes: whether these are UTF-8 is asked cell by cell."""
    pa = require_pyarrow()
    views = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    return column.view(views[column.type]) if column.type in views else column


def row_parts(
    batch: Any, row: int, *, schema: Any, folder: str, limits: Limits
) -> tuple[str | None, dict[str, Any]]:
    """The key of a row, if it has one, and its parts by column.

    Args:
      batch: a record batch, its text as in `as_binary`.
      row: of the batch.
      schema: of the file, which tells text from bytes.
      folder: in which the paths of `{bytes, path}` structs lie.
      limits: on the bytes of a cell.

    Raises:
      DecodeError: if a cell is beyond the limits, or its file cannot be had; says which.
      OSError: if a file is there and cannot be read.
    """
    parts: dict[str, Any] = {}
    for place, field in enumerate(schema):
        try:
            cell = _cell(batch.column(place)[row], field.type, limits=limits)
            if isinstance(cell, dict) and cell and set(cell) <= FILE:
                cell = _file(cell, folder=folder, limits=limits)
        except DecodeError as error:
            raise DecodeError(f"{field.name}: {error}") from error
        parts[field.name] = cell
    key = parts.pop(KEY, None)
    return None if key is None else str(key), parts


def _cell(scalar: Any, kind: Any, *, limits: Limits) -> Any:
    """A value as `RawRecord.parts` has it: lists of numbers are arrays where none is null."""
    pa = require_pyarrow()
    types = pa.types
    if isinstance(scalar, pa.ExtensionScalar):
        scalar, kind = scalar.value, kind.storage_type
    if scalar is None or not scalar.is_valid:
        return None
    if types.is_dictionary(kind):
        return _cell(scalar.value, kind.value_type, limits=limits)
    if _is_bytes(kind) or _is_text(kind):
        buffer = scalar.as_buffer()
        check_size(buffer.size, limits)
        return _text(buffer.to_pybytes()) if _is_text(kind) else buffer.to_pybytes()
    if types.is_map(kind):
        pairs = [(_cell(k, kind.key_type, limits=limits), v) for k, v in _items(scalar)]
        return {str(k): _cell(v, kind.item_type, limits=limits) for k, v in pairs}
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _list(scalar.values, kind.value_type, limits=limits)
    if types.is_struct(kind):
        return {
            field.name: _cell(scalar[place], field.type, limits=limits)
            for place, field in enumerate(kind)
        }
    return _plain(scalar.as_py(), kind)


def _list(values: Any, kind: Any, *, limits: Limits) -> Any:
    pa = require_pyarrow()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        check_size(values.nbytes, limits)
        if values.null_count == 0:
            return values.to_numpy(zero_copy_only=False)
    return [_cell(value, kind, limits=limits) for value in values]


def _items(scalar: Any) -> list[tuple[Any, Any]]:
    entries = scalar.values
    return list(zip(entries.field(0), entries.field(1), strict=True))


def _plain(value: Any, kind: Any) -> Any:
    match value:
        case bool() | int() | float() | None:
            return value
        case np.generic():
            return value.item()
        case decimal.Decimal():
            return str(value)
        case dt.date() | dt.time():
            return value.isoformat()
        case dt.timedelta():
            return value.total_seconds()
    raise DecodeError(f"columns of type {kind} are not read")


def _text(data: bytes) -> str | bytes:
    """Text; bytes that are none are left to the decoder of the field, which says so."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data


def _file(cell: Mapping[str, Any], *, folder: str, limits: Limits) -> Any:
    """The bytes of `{bytes, path}`: those in it, else those of the file at `path`."""
    content, path = cell.get("bytes"), cell.get("path")
    if content is not None or path is None:
        return content
    return read_beside(str(path), folder=folder, limits=limits)


def _is_bytes(kind: Any) -> bool:
    types = require_pyarrow().types
    return (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )


def _is_text(kind: Any) -> bool:
    types = require_pyarrow().types
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
