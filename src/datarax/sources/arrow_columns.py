"""From the columns of an Arrow table to functions from a row to a part of its record.

A cell of Arrow is an object first, which takes longer than the copy of its bytes: columns of text
and bytes, plain or as Hugging Face's `{bytes, path}`, are read from their buffers.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from datarax.sources.arrow_cells import (
    FILE,
    cell_reader,
    is_bytes,
    is_text,
    require_pyarrow,
    text_or_bytes,
)
from datarax.sources.beside import check_size
from datarax.sources.limits import Limits

PartOf = Callable[[int], Any]


def column_reader(kind: Any, *, folder: str, limits: Limits) -> Callable[[Any], PartOf]:
    """A function from columns of a type, as `as_binary` gives them, to functions of the row.

    Args:
      kind: a type of Arrow.
      folder: in which the paths of `{bytes, path}` structs lie.
      limits: on the bytes of a cell; beyond them the function of the row raises DecodeError.

    Raises:
      DecodeError: if the type is not read.
    """
    read = cell_reader(kind, folder=folder, limits=limits)
    types = require_pyarrow().types

    def bind(column: Any) -> PartOf:
        if is_text(kind) or is_bytes(kind):
            part_of = _bytes_of(column, limits)
            if part_of is not None:
                return _text_of(part_of) if is_text(kind) else part_of
        if types.is_struct(kind) and {field.name for field in kind} == FILE:
            content = _bytes_of(column.field("bytes"), limits)
            if content is not None and is_bytes(kind.field("bytes").type):
                return _content_of(column, content, lambda row: read(column[row]))
        return lambda row: read(column[row])

    return bind


def _bytes_of(column: Any, limits: Limits) -> PartOf | None:
    """The bytes of each row, `None` of a null; `None` for a column that is laid out otherwise."""
    types = require_pyarrow().types
    if not types.is_binary(column.type) and not types.is_large_binary(column.type):
        return None
    _, offsets, data = column.buffers()
    if offsets is None or data is None:  # no rows, or none with bytes
        return None
    kind = np.int64 if types.is_large_binary(column.type) else np.int32
    edges = np.frombuffer(offsets, kind)[column.offset :].data
    content, valid = memoryview(data), _valid(column)

    def part_of(row: int) -> bytes | None:
        if valid is not None and not valid[row]:
            return None
        start, stop = edges[row], edges[row + 1]
        check_size(stop - start, limits)
        return bytes(content[start:stop])

    return part_of


def _text_of(part_of: PartOf) -> PartOf:
    def text_of(row: int) -> str | bytes | None:
        data = part_of(row)
        return None if data is None else text_or_bytes(data)

    return text_of


def _content_of(column: Any, content: PartOf, otherwise: PartOf) -> PartOf:
    """The bytes of a struct `{bytes, path}`; `otherwise` where there are none."""
    valid = _valid(column)

    def content_of(row: int) -> Any:
        if valid is not None and not valid[row]:
            return None
        data = content(row)
        return otherwise(row) if data is None else data

    return content_of


def _valid(column: Any) -> Sequence[int] | None:
    """Which rows are not null; `None` if all are."""
    if column.null_count == 0:
        return None
    return column.is_valid().to_numpy(zero_copy_only=False).view(np.uint8).data
