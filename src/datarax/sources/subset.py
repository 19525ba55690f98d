"""Some of the records of a source."""

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np

from datarax.core.config import DataraxModuleConfig
from datarax.core.data_source import DataSourceModule
from datarax.core.element_batch import Element
from datarax.sources.record import Fault
from datarax.sources.sharded import ShardedSource
from datarax.sources.traits import (
    Reading,
    ReadInto,
    bulk_reader,
    lost_parts,
    optional_fields,
    padded_lengths,
    source_fingerprint,
)

SPLITS = ("train", "validation", "test")
_BITS = 2**64 - 1


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
        size = len(self.rows)
        if not -size <= index < size:
            raise IndexError(f"record {index} of a source of {size}")
        return self.source[int(self.rows[index])]

    @property
    def read_into(self) -> ReadInto | None:
        """As the source's, of the records at `rows`."""
        read = bulk_reader(self.source)
        return None if read is None else functools.partial(self._read_into, read)

    def _read_into(
        self, read: ReadInto, numbers: Sequence[int], columns: Mapping[str, np.ndarray]
    ) -> Reading:
        rows = self.rows
        if isinstance(rows, np.ndarray):
            return read(rows[np.asarray(numbers)].tolist(), columns)
        return read([int(rows[number]) for number in numbers], columns)

    @property
    def faults(self) -> list[Fault]:
        """What the whole source has lost."""
        return lost_parts(self.source)

    @property
    def optional(self) -> tuple[str, ...]:
        """The fields that a record may lack."""
        return optional_fields(self.source)

    @property
    def padded_lengths(self) -> dict[str, tuple[int, ...]]:
        """As those of the source."""
        return padded_lengths(self.source)

    def element_spec(self) -> Any:
        """As that of the source."""
        return self.source.element_spec()

    def fingerprint(self) -> str:
        """That of the source, and which rows."""
        return f"{source_fingerprint(self.source)} {_described(self.rows)}"


class SplitRows(Sequence[int]):
    """The numbers below `size` that are in a split, in order, without a list of them.

    Of each `every` numbers one is for validation and one to test, at places that a hash of their
    block gives: data of any period (five captions to a picture) falls evenly on the splits. A
    number stays in its split when `size` grows.

    Args:
      size: how many numbers there are.
      every: at least 3.
      split: "train", "validation" or "test".

    Raises:
      ValueError: for another split, or `every` below 3.

    Example:
      >>> [list(SplitRows(9, every=4, split=s)) for s in ("train", "validation", "test")]
      [[1, 2, 5, 6, 8], [0, 7], [3, 4]]
    """

    def __init__(self, size: int, *, every: int, split: str) -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {list(SPLITS)}, got {split!r}")
        if every < 3:
            raise ValueError(f"every must be at least 3, got {every}")
        self.size = size
        self.every = every
        self.split = split
        self._each = every - 2 if split == "train" else 1

    def __len__(self) -> int:
        blocks, rest = divmod(self.size, self.every)
        return blocks * self._each + sum(row < rest for row in self._places(blocks))

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
        block, inside = divmod(place, self._each)
        return block * self.every + self._places(block)[inside]

    def __iter__(self) -> Iterator[int]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"SplitRows({self.size}, every={self.every}, split={self.split!r})"

    def _places(self, block: int) -> list[int]:
        """Where in a whole block the split is."""
        mixed = _mix(block)
        test = mixed % self.every
        validation = (test + 1 + (mixed >> 32) % (self.every - 1)) % self.every
        if self.split == "train":
            return [row for row in range(self.every) if row not in (test, validation)]
        return [test if self.split == "test" else validation]


def _mix(number: int) -> int:
    """64 bits that depend on all bits of a number (the finaliser of SplitMix64)."""
    x = (number + 1) * 0x9E3779B97F4A7C15 & _BITS
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _BITS
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _BITS
    return x ^ (x >> 31)


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
    if isinstance(rows, range | SplitRows):
        return repr(rows)
    numbers = np.asarray(rows, "<i8")
    digest = hashlib.blake2b(numbers.tobytes(), digest_size=8).hexdigest()
    return f"{len(numbers)} rows {digest}"
