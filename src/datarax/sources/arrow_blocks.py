"""Rows of an Arrow table: blocks of them that lie in memory together, and records from them."""

import bisect
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from datarax.sources.arrow_cells import as_binary, is_damage
from datarax.sources.arrow_columns import PartOf, column_reader
from datarax.sources.limits import Limits
from datarax.sources.record import DecodeError, Fault, RawRecord, RecordError
from datarax.sources.row_key import KEY, key_of


class Chunk(NamedTuple):
    """Rows that lie in memory together: functions from a row to its key and to its parts."""

    key: PartOf | None
    parts: Sequence[tuple[str, PartOf]]


@dataclasses.dataclass(frozen=True)
class Block:
    """Rows in some chunks.

    Attributes:
      chunks: none is empty.
      ends: the number of rows up to the end of each.
      size: in bytes.
    """

    chunks: Sequence[Chunk]
    ends: Sequence[int]
    size: int

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def row(self, row: int) -> tuple[Chunk, int]:
        """The chunk that a row is in, and its place there."""
        place = bisect.bisect_right(self.ends, row)
        return self.chunks[place], row - (self.ends[place - 1] if place else 0)


class TableRows:
    """Records from the rows of blocks of one schema.

    Args:
      name: of the shard.
      schema: of Arrow.
      folder: in which the files lie that cells name.
      limits: on cells.

    Attributes:
      faults: one for each column whose type is not read: it is left out.

    Raises:
      ValueError: if two columns have one name.
    """

    def __init__(self, name: str, schema: Any, *, folder: str, limits: Limits) -> None:
        self.name = name
        self.faults: list[Fault] = []
        self._readers: list[tuple[int, str, Callable[[Any], PartOf]]] = []
        for place, field in enumerate(schema):
            if schema.names.count(field.name) > 1:
                raise ValueError(f"two columns have the name {field.name!r}")
            try:
                reader = column_reader(field.type, folder=folder, limits=limits)
            except DecodeError as error:
                self.faults.append(Fault(name, field=field.name, reason=f"left out: {error}"))
                continue
            self._readers.append((place, field.name, reader))

    def block(self, batches: Sequence[Any]) -> Block:
        """A block of record batches, after a check that no offset leads out of them.

        Raises:
          pyarrow.ArrowInvalid: if one does.
        """
        chunks, counts, size = [], [], 0
        for batch in batches:
            columns = [as_binary(column) for column in batch.columns]
            for column in columns:
                column.validate(full=True)
            if batch.num_rows:
                parts = {name: read(columns[place]) for place, name, read in self._readers}
                chunks.append(Chunk(parts.pop(KEY, None), list(parts.items())))
                counts.append(batch.num_rows)
                size += sum(column.nbytes for column in columns)
        return Block(chunks, list(itertools.accumulate(counts)), size)

    def record(self, block: Block, inside: int, *, row: int) -> RawRecord:
        """The record in row `inside` of a block, which is `row` of the shard.

        Raises:
          RecordError: if a cell cannot be read.
          OSError: if a file is there that a cell names, and cannot be read.
        """
        chunk, place = block.row(inside)
        key, at = str(row), KEY
        try:
            if chunk.key is not None:
                key = key_of(chunk.key(place), row=row)
            parts = {}
            for at, part_of in chunk.parts:
                parts[at] = part_of(place)
        except Exception as error:
            if not isinstance(error, DecodeError) and not is_damage(error):
                raise
            raise RecordError(Fault(self.name, key, row, at, one_line(error))) from error
        return RawRecord(key, parts)


def one_line(error: BaseException) -> str:
    """What an error says, as the reason of a fault."""
    return " ".join(str(error).split())[:200] or type(error).__name__
