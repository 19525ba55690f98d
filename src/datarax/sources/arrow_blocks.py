"""Rows of an Arrow table: blocks of them that lie in memory together, and records from them."""

import bisect
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from datarax.sources.arrow_cells import CellReader, as_binary, cell_reader, is_damage
from datarax.sources.limits import Limits
from datarax.sources.record import DecodeError, Fault, RawRecord, RecordError
from datarax.sources.row_key import KEY, key_of


@dataclasses.dataclass(frozen=True)
class Block:
    """Rows in some chunks, their text as bytes.

    Attributes:
      chunks: the columns of each, none empty.
      ends: the number of rows up to the end of each.
      size: in bytes.
    """

    chunks: Sequence[Sequence[Any]]
    ends: Sequence[int]
    size: int

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def row(self, row: int) -> tuple[Sequence[Any], int]:
        """The columns that a row is in, and its place there."""
        place = bisect.bisect_right(self.ends, row)
        return self.chunks[place], row - (self.ends[place - 1] if place else 0)


def block_of(batches: Sequence[Any]) -> Block:
    """A block of record batches, after a check that no offset leads out of them.

    Raises:
      pyarrow.ArrowInvalid: if one does.
    """
    chunks, counts = [], []
    for batch in batches:
        columns = [as_binary(column) for column in batch.columns]
        for column in columns:
            column.validate(full=True)
        if batch.num_rows:
            chunks.append(columns)
            counts.append(batch.num_rows)
    size = sum(column.nbytes for columns in chunks for column in columns)
    return Block(chunks, list(itertools.accumulate(counts)), size)


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
        self._readers: list[tuple[int, str, CellReader]] = []
        self._key: tuple[int, CellReader] | None = None
        for place, field in enumerate(schema):
            if schema.names.count(field.name) > 1:
                raise ValueError(f"two columns have the name {field.name!r}")
            try:
                reader = cell_reader(field.type, folder=folder, limits=limits)
            except DecodeError as error:
                self.faults.append(Fault(name, field=field.name, reason=f"left out: {error}"))
                continue
            if field.name == KEY:
                self._key = place, reader
            else:
                self._readers.append((place, field.name, reader))

    def record(self, block: Block, inside: int, *, row: int) -> RawRecord:
        """The record in row `inside` of a block, which is `row` of the shard.

        Raises:
          RecordError: if a cell cannot be read.
          OSError: if a file is there that a cell names, and cannot be read.
        """
        columns, place = block.row(inside)
        key, at = str(row), KEY
        try:
            if self._key is not None:
                column, read = self._key
                key = key_of(read(columns[column][place]), row=row)
            parts = {}
            for column, at, read in self._readers:
                parts[at] = read(columns[column][place])
        except Exception as error:
            if not isinstance(error, DecodeError) and not is_damage(error):
                raise
            raise RecordError(Fault(self.name, key, row, at, one_line(error))) from error
        return RawRecord(key, parts)


def one_line(error: BaseException) -> str:
    """What an error says, as the reason of a fault."""
    return " ".join(str(error).split())[:200] or type(error).__name__
