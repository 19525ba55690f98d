"""Rows of an Arrow table that lie in memory together, checked."""

import bisect
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from datarax.sources.arrow_cells import as_binary, require_pyarrow


@dataclasses.dataclass(frozen=True)
class Block:
    """Record batches of one schema, their text as bytes.

    Attributes:
      schema: as the file has it.
      batches: not empty ones.
      ends: the number of rows up to the end of each.
    """

    schema: Any
    batches: Sequence[Any]
    ends: Sequence[int]

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(batch.nbytes for batch in self.batches)

    def locate(self, row: int) -> tuple[Any, int]:
        """The batch that a row is in, and its place there."""
        place = bisect.bisect_right(self.ends, row)
        return self.batches[place], row - (self.ends[place - 1] if place else 0)


def block_of(schema: Any, batches: Sequence[Any]) -> Block:
    """A block of batches, after a check that no offset leads out of them.

    Raises:
      pyarrow.ArrowInvalid: if one does.
      ValueError: if two columns have one name.
    """
    if len(set(schema.names)) < len(schema.names):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise ValueError(f"two columns have the name {twice!r}")
    pa = require_pyarrow()
    checked = []
    for batch in batches:
        columns = [as_binary(column) for column in batch.columns]
        for column in columns:
            column.validate(full=True)
        if batch.num_rows:
            checked.append(pa.RecordBatch.from_arrays(columns, names=schema.names))
    ends = list(itertools.accumulate(batch.num_rows for batch in checked))
    return Block(schema, checked, ends)
