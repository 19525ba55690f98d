"""From the cells of an Arrow table to the parts of a record."""

import decimal
from collections.abc import Callable
from typing import Any

import numpy as np

from datarax.sources.beside import check_size, read_beside
from datarax.sources.limits import Limits
from datarax.sources.record import DecodeError

FILE = {"bytes", "path"}  # the struct of Hugging Face's images and sounds
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

CellReader = Callable[[Any], Any]


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

    It raises a plain OSError, without a number, for bytes that it cannot decompress or decode.
    """
    pa = require_pyarrow()
    if isinstance(error, OSError):
        return type(error) is OSError and error.errno is None
    if isinstance(error, MemoryError):  # which pyarrow's own is, besides an ArrowException
        return False
    return isinstance(error, pa.ArrowException | ValueError | OverflowError | IndexError)


def as_binary(column: Any) -> Any:
    """A chunk with its text as bytes: whether these are UTF-8 is asked cell by cell."""
    pa = require_pyarrow()
    if isinstance(column, pa.ExtensionArray):
        return as_binary(column.storage)
    if pa.types.is_dictionary(column.type):
        return pa.DictionaryArray.from_arrays(column.indices, as_binary(column.dictionary))
    kind = _binary_type(column.type)
    return column if kind == column.type else column.view(kind)


def cell_reader(kind: Any, *, folder: str, limits: Limits) -> CellReader:
    """A function from cells of a type, their text as in `as_binary`, to parts.

    Args:
      kind: a type of Arrow.
      folder: in which the paths of `{bytes, path}` structs lie.
      limits: on the bytes of a cell, which raises DecodeError beyond them.

    Raises:
      DecodeError: if the type is not read.
    """
    read = _reader(kind, folder, limits)
    return lambda cell: read(cell) if cell.is_valid else None


def _reader(kind: Any, folder: str, limits: Limits) -> CellReader:
    """`cell_reader` of cells that are not null."""
    pa = require_pyarrow()
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _extension(kind, folder, limits)
    if types.is_dictionary(kind):
        inner = cell_reader(kind.value_type, folder=folder, limits=limits)
        return lambda cell: inner(cell.value)
    if is_text(kind):
        return lambda cell: text_or_bytes(_content(cell, limits))
    if is_bytes(kind):
        return lambda cell: _content(cell, limits)
    if types.is_map(kind):
        return _map(kind, folder, limits)
    if _is_list(kind):
        return _list(kind.value_type, folder, limits)
    if types.is_struct(kind):
        return _struct(kind, folder, limits)
    return _plain(kind)


def _content(cell: Any, limits: Limits) -> bytes:
    buffer = cell.as_buffer()
    check_size(buffer.size, limits)
    return bytes(buffer.to_pybytes())


def text_or_bytes(data: bytes) -> str | bytes:
    """Text; bytes that are none are left to the decoder of the field, which says so."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data


def _list(kind: Any, folder: str, limits: Limits) -> CellReader:
    """Lists of numbers are arrays where none is null."""
    types = require_pyarrow().types
    inner = cell_reader(kind, folder=folder, limits=limits)
    are_numbers = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)

    def read(cell: Any) -> Any:
        values = cell.values
        check_size(values.nbytes if are_numbers else 8 * len(values), limits)
        if are_numbers and values.null_count == 0:
            return values.to_numpy(zero_copy_only=False)
        return [inner(value) for value in values]

    return read


def _map(kind: Any, folder: str, limits: Limits) -> CellReader:
    names = cell_reader(kind.key_type, folder=folder, limits=limits)
    values = cell_reader(kind.item_type, folder=folder, limits=limits)

    def read(cell: Any) -> dict[str, Any]:
        entries = cell.values
        check_size(8 * len(entries), limits)
        pairs = zip(entries.field(0), entries.field(1), strict=True)
        found = {str(names(name)): values(value) for name, value in pairs}
        if len(found) < len(entries):
            raise DecodeError("a map has a name twice")
        return found

    return read


def _struct(kind: Any, folder: str, limits: Limits) -> CellReader:
    readers = [
        (field.name, cell_reader(field.type, folder=folder, limits=limits)) for field in kind
    ]
    places = {name: (place, inner) for place, (name, inner) in enumerate(readers)}
    if len(places) < len(readers):
        raise DecodeError(f"structs with a name twice are not read: {kind}")

    def read(cell: Any) -> dict[str, Any]:
        return {name: inner(cell[place]) for place, (name, inner) in enumerate(readers)}

    def read_one(cell: Any, name: str) -> Any:
        place, inner = places[name]
        return inner(cell[place])

    def read_file(cell: Any) -> Any:
        content = read_one(cell, "bytes")
        path = None if content is not None else read_one(cell, "path")
        if path is None:
            return content
        if not isinstance(path, str):
            raise DecodeError(f"the path {path!r} is not text")
        return read_beside(path, folder=folder, limits=limits)

    return read_file if places.keys() == FILE else read


def _extension(kind: Any, folder: str, limits: Limits) -> CellReader:
    """What a type is stored as; tensors in their shape."""
    inner = _reader(kind.storage_type, folder, limits)
    pa = require_pyarrow()
    if not isinstance(kind, pa.FixedShapeTensorType):
        return lambda cell: inner(cell.value if isinstance(cell, pa.ExtensionScalar) else cell)
    if kind.permutation is not None and list(kind.permutation) != sorted(kind.permutation):
        raise DecodeError(f"tensors with a permutation are not read: {kind}")
    return lambda cell: np.reshape(inner(cell), kind.shape)


def _plain(kind: Any) -> CellReader:
    """Numbers as such, decimals and points in time as text, spans of time as seconds."""
    types = require_pyarrow().types
    if types.is_duration(kind):
        return lambda cell: cell.value / PER_SECOND[kind.unit]
    if types.is_date(kind) or types.is_time(kind) or types.is_timestamp(kind):
        return lambda cell: _iso(cell, kind)
    if (
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_null(kind)
    ):
        return lambda cell: cell.as_py()
    if types.is_decimal(kind):
        return lambda cell: _decimal(cell.as_py())
    raise DecodeError(f"the type {kind} is not read")


def _decimal(value: decimal.Decimal) -> str:
    return format(value, "f")


def _iso(cell: Any, kind: Any) -> str:
    """ISO 8601, in UTC where the type has a time zone; `as_py` would lose ns, and needs the zone's
    rules.
    """
    pa = require_pyarrow()
    zone = ""
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        cell, zone = cell.cast(pa.timestamp(kind.unit)), "Z"
    text = cell.cast(pa.string()).as_py()
    if text.startswith("<"):  # "<value out of range: ...>"
        raise DecodeError(f"{text.strip('<>')} of {kind}")
    return text.replace(" ", "T") + zone


def _binary_type(kind: Any) -> Any:
    """`kind` with bytes for text, at any depth."""
    pa = require_pyarrow()
    types = pa.types
    if is_text(kind):
        if types.is_string_view(kind):
            return pa.binary_view()
        return pa.large_binary() if types.is_large_string(kind) else pa.binary()
    if isinstance(kind, pa.BaseExtensionType):
        return _binary_type(kind.storage_type)
    if types.is_struct(kind):
        return pa.struct([field.with_type(_binary_type(field.type)) for field in kind])
    if types.is_map(kind):
        fields = [f.with_type(_binary_type(f.type)) for f in (kind.key_field, kind.item_field)]
        return pa.map_(*fields, keys_sorted=kind.keys_sorted)
    if not _is_list(kind):
        return kind
    value = kind.value_field.with_type(_binary_type(kind.value_type))
    if types.is_fixed_size_list(kind):
        return pa.list_(value, kind.list_size)
    if types.is_list_view(kind):
        return pa.list_view(value)
    if types.is_large_list_view(kind):
        return pa.large_list_view(value)
    return pa.large_list(value) if types.is_large_list(kind) else pa.list_(value)


def _is_list(kind: Any) -> bool:
    types = require_pyarrow().types
    return (
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


def is_bytes(kind: Any) -> bool:
    """Whether a type is one of bytes."""
    types = require_pyarrow().types
    return (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )


def is_text(kind: Any) -> bool:
    """Whether a type is one of text."""
    types = require_pyarrow().types
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
