"""Some of the records of a source."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

from datarax.core.config import DataraxModuleConfig
from datarax.core.data_source import DataSourceModule
from datarax.core.element_batch import Element
from datarax.sources.record import Fault
from datarax.sources.sharded import ShardedSource
from datarax.sources.traits import lost_parts, optional_fields, source_fingerprint


class SubsetSource(DataSourceModule):
    """The records of `source` at `rows`, in that order.

    Args:
      source: where they are.
      rows: numbers of records; any sequence, so that a rule need not be written out.

    Raises:
      ValueError: if there are none.

    Example:
      >>> from datarax.sources import MemorySource
      >>> subset = SubsetSource(MemorySource({"x": np.arange(10)}), range(1, 10, 4))
      >>> len(subset), [int(element.data["x"]) for element in subset]
      (3, [1, 5, 9])
    """

    def __init__(self, source: DataSourceModule, rows: Sequence[int]) -> None:
        super().__init__(DataraxModuleConfig())
        if len(rows) == 0:
            raise ValueError(f"a subset of {len(source)} records needs at least one, got none")
        self.source = source
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Element:
        """Record `rows[index]` of the source.

        Raises:
          IndexError: if there is no such record.
          RecordError: as the source does.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of a source of {len(self)}")
        return self.source[int(self.rows[index])]

    @property
    def faults(self) -> list[Fault]:
        """What the whole source has lost."""
        return lost_parts(self.source)

    @property
    def optional(self) -> tuple[str, ...]:
        """The fields that a record may lack."""
        return optional_fields(self.source)

    def element_spec(self) -> Any:
        """As that of the source."""
        return self.source.element_spec()

    def fingerprint(self) -> str:
        """That of the source, and which rows."""
        return f"{source_fingerprint(self.source)} {_described(self.rows)}"


class Others(Sequence[int]):
    """The numbers below `size` that are not one of the last two of each `every`, in order.

    Example:
      >>> list(Others(9, every=4))
      [0, 1, 4, 5, 8]
    """

    def __init__(self, size: int, *, every: int) -> None:
        self.size = size
        self.every = every

    def __len__(self) -> int:
        whole, rest = divmod(self.size, self.every)
        return whole * (self.every - 2) + min(rest, self.every - 2)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> "list[int]": ...
    def __getitem__(self, index: int | slice) -> "int | list[int]":
        """Number `index`."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"number {index} of {len(self)}")
        whole, rest = divmod(place, self.every - 2)
        return whole * self.every + rest

    def __iter__(self) -> Iterator[int]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"Others({self.size}, every={self.every})"


def split_rows(size: int, *, every: int, split: str) -> Sequence[int]:
    """The records of a split: of each `every`, the last but one validates, and the last tests.

    It holds for any number of records without a list of them, and a record that is there stays in
    its split when more are added behind it.

    Args:
      size: the number of records.
      every: at least 3.
      split: "train", "validation", "test", or "all".

    Example:
      >>> [list(split_rows(9, every=4, split=s)) for s in ("train", "validation", "test")]
      [[0, 1, 4, 5, 8], [2, 6], [3, 7]]
    """
    rows: dict[str, Sequence[int]] = {
        "train": Others(size, every=every),
        "validation": range(every - 2, size, every),
        "test": range(every - 1, size, every),
        "all": range(size),
    }
    return rows[split]


def rows_of_faults(source: ShardedSource, faults: Sequence[Fault]) -> list[int]:
    """The numbers of the records that a ledger lists, in order: a run over these alone.

    What a shard has lost as a whole has no row and is left out, as are records of other shards.
    """
    listed: dict[str, set[int]] = {}
    for fault in faults:
        if fault.row is not None:
            listed.setdefault(fault.shard, set()).add(fault.row)
    rows, start = [], 0
    for shard in source.shards.shards:
        here = sorted(row for row in listed.get(shard.name, ()) if row < len(shard))
        rows += [start + row for row in here]
        start += len(shard)
    return rows


def _described(rows: Sequence[int]) -> str:
    if isinstance(rows, range | Others):
        return repr(rows)
    numbers = np.asarray(rows, "<i8")
    digest = hashlib.blake2b(numbers.tobytes(), digest_size=8).hexdigest()
    return f"{len(numbers)} rows {digest}"
