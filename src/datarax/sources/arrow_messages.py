"""The messages of an Arrow file or stream: where they lie, and what their headers say.

Headers are flatbuffers, of Message.fbs and File.fbs (https://arrow.apache.org/docs/format), which
pyarrow verifies and does not show.
"""

import dataclasses
import itertools
import struct
from collections.abc import Iterator
from typing import Any

from datarax.sources.arrow_cells import require_pyarrow
from datarax.sources.record import DecodeError

END = b"\xff\xff\xff\xff\0\0\0\0"
MAGIC = b"ARROW1"
FRAME = 8  # bytes before the first message of the file format

_DATA = {"dictionary", "record batch"}


@dataclasses.dataclass(frozen=True)
class Message:
    """A message in a file.

    Attributes:
      kind: "schema", "dictionary" or "record batch".
      start, stop: its first byte, and the one behind its last.
      rows: of a batch.
      unpacked: the bytes that its buffers have, decompressed.
    """

    kind: str
    start: int
    stop: int
    rows: int = 0
    unpacked: int = 0


def next_message(source: Any) -> tuple[Message, bytes] | None:
    """The message at the place of an open file, and its header; `None` at the end.

    Raises:
      pyarrow.ArrowInvalid, OSError without a number: if there is none, or it is cut.
      DecodeError: if its header contradicts itself.
    """
    pa = require_pyarrow()
    start = source.tell()
    try:
        found = pa.ipc.read_message(source)
    except EOFError:
        return None
    header = found.metadata.to_pybytes()
    rows = unpacked = 0
    if found.type in _DATA:
        try:
            rows, unpacked = _batch(header, found.body, is_dictionary=found.type == "dictionary")
        except (struct.error, IndexError) as error:
            raise DecodeError(f"the header of a {found.type} cannot be read") from error
    return Message(found.type, start, source.tell(), rows, unpacked), header


def batches_in_footer(footer: bytes) -> int:
    """The number of record batches that the footer of the file format lists.

    Raises:
      DecodeError: if it cannot be read.
    """
    try:
        table = struct.unpack_from("<I", footer)[0]
        return _vector(footer, table, 3)[1]
    except (struct.error, IndexError) as error:
        raise DecodeError("the footer cannot be read") from error


def _batch(header: bytes, body: Any, *, is_dictionary: bool) -> tuple[int, int]:
    """Rows and decompressed bytes of a record batch, after a check that no buffers overlap."""
    table = _table(header, struct.unpack_from("<I", header)[0], 2)
    if is_dictionary:
        table = _table(header, table, 1)
    at = _field(header, table, 0)
    rows = struct.unpack_from("<q", header, at)[0] if at else 0
    nodes, columns = _vector(header, table, 1)
    if not columns or struct.unpack_from("<q", header, nodes)[0] != rows:
        raise DecodeError(f"a record batch of {rows} rows has no column of as many")
    spans = list(_buffers(header, table))
    size = body.size if body is not None else 0
    edges = [0, *itertools.chain.from_iterable((a, a + n) for a, n in spans if n), size]
    if rows < 0 or edges != sorted(edges) or any(n < 0 for _, n in spans):
        raise DecodeError("the buffers of a record batch overlap, or lead out of it")
    if not _field(header, table, 3):
        return rows, size
    unpacked = 0
    for start, length in spans:
        if length:
            (declared,) = struct.unpack("<q", body.slice(start, 8).to_pybytes())
            unpacked += length if declared == -1 else declared
            if declared < -1:
                raise DecodeError("a buffer of a record batch declares a size below 0")
    return rows, unpacked


def _buffers(header: bytes, table: int) -> Iterator[tuple[int, int]]:
    start, count = _vector(header, table, 2)
    for place in range(count):
        yield struct.unpack_from("<qq", header, start + 16 * place)


def _vector(data: bytes, table: int, field: int) -> tuple[int, int]:
    """Where the entries of a vector begin, and how many there are."""
    at = _field(data, table, field)
    if not at:
        return 0, 0
    at += struct.unpack_from("<I", data, at)[0]
    return at + 4, struct.unpack_from("<I", data, at)[0]


def _table(data: bytes, table: int, field: int) -> int:
    at = _field(data, table, field)
    if not at:
        raise IndexError(field)
    return at + int(struct.unpack_from("<I", data, at)[0])


def _field(data: bytes, table: int, field: int) -> int:
    """Where a field of a table lies; 0 if it is left at its default."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if vtable < 0:
        raise IndexError(vtable)
    (size,) = struct.unpack_from("<H", data, vtable)
    if 4 + 2 * field >= size:
        return 0
    (offset,) = struct.unpack_from("<H", data, vtable + 4 + 2 * field)
    return table + offset if offset else 0
