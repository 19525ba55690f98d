"""What a file of records has to offer, and the records of many as one sequence."""

import bisect
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from datarax.sources.record import Fault, RawRecord


class Shard(Protocol):
    """Random access to the records of one file. Safe to read from several threads."""

    @property
    def name(self) -> str:
        """Its path or URL, as faults name it."""

    @property
    def faults(self) -> Sequence[Fault]:
        """What of the file itself is lost: a part behind a cut, a member that is refused."""

    def __len__(self) -> int:
        """The number of records that are there."""

    def read(self, row: int) -> RawRecord:
        """Record `row`, the same at every call.

        Raises:
          RecordError: if it cannot be read.
          OSError: if the file cannot: always fatal.
        """

    def identity(self) -> str:
        """Changes with the content: of name, size and whatever tells one version from another."""


class Shards:
    """Shards in their order, as one sequence of records.

    Example:
      >>> from datarax.sources.record import RawRecord
      >>> class Listed:
      ...     name, faults = "here", ()
      ...     def __len__(self): return 2
      ...     def read(self, row): return RawRecord(str(row), {})
      ...     def identity(self): return "2"
      >>> shards = Shards([Listed(), Listed()])
      >>> len(shards), shards.locate(2)[1], shards.read(3).key
      (4, 0, '1')
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = tuple(shards)
        self.ends = list(itertools.accumulate(len(shard) for shard in self.shards))
        self._starts = [0, *self.ends]
        self._count = self._starts[-1]

    def __len__(self) -> int:
        return self._count

    @property
    def faults(self) -> list[Fault]:
        """Those of all shards, in order."""
        return [fault for shard in self.shards for fault in shard.faults]

    def locate(self, index: int) -> tuple[Shard, int]:
        """The shard that record `index` is in, and its row there.

        Raises:
          IndexError: if there is no such record.
        """
        return next(self.places([index]))

    def places(self, indices: Iterable[int]) -> Iterator[tuple[Shard, int]]:
        """As `locate`, of one after another, in a quarter of the time."""
        shards, starts, ends, count = self.shards, self._starts, self.ends, self._count
        for index in indices:
            if not 0 <= index < count:
                raise IndexError(f"record {index} of a source of {count}")
            place = bisect.bisect_right(ends, index)
            yield shards[place], index - starts[place]

    def read(self, index: int) -> RawRecord:
        """Record `index` of all."""
        shard, row = self.locate(index)
        return shard.read(row)

    def fingerprint(self) -> str:
        """16 hex digits that change with any shard, and with their order."""
        digest = hashlib.blake2b(digest_size=8)
        for shard in self.shards:
            digest.update(f"{len(shard)} {shard.identity()};".encode())
        return digest.hexdigest()
