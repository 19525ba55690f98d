"""Keys that differ within a tar, where those of its source shards do not."""

import collections
import os
import re
from collections.abc import Iterable, Iterator

from datarax.sources.open import KNOWN
from datarax.sources.record import RawRecord


def distinct_keys(
    records: Iterable[tuple[str, RawRecord]], *, changed: collections.Counter[str] | None = None
) -> Iterator[RawRecord]:
    """The records, none with the key of one before it: a tar would make one of the two.

    A key that comes again gets the name of its source shard in front, `part-1/0`; where that is
    taken too, a number behind, `part-1/0-2`. It depends on the records before it alone.

    Args:
      records: with the source shard that each is of.
      changed: counts the keys that were changed, by their shard.

    Example:
      >>> same = RawRecord("0", {})
      >>> shards = ["in/a.parquet", "in/b.parquet", "other/b.parquet"]
      >>> [record.key for record in distinct_keys((shard, same) for shard in shards)]
      ['0', 'b/0', 'b/0-2']
    """
    taken: set[str] = set()
    for shard, record in records:
        key = record.key
        if key in taken:
            if changed is not None:
                changed[shard] += 1
            longer = f"{_stem(shard)}/{key}"
            key, number = longer, 1
            while key in taken:
                number += 1
                key = f"{longer}-{number}"
            record = RawRecord(key, record.parts)
        taken.add(key)
        yield record


def _stem(shard: str) -> str:
    """A shard's name without its suffix, of characters that the name of a member may have."""
    name = os.path.basename(os.path.normpath(shard))
    ends = [end for end in KNOWN if name.lower().endswith(end)]
    name = name[: len(name) - max(map(len, ends))] if ends else name
    return re.sub(r"[^\w-]+", "-", name) or "-"
