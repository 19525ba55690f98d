"""What is said, and when, if there is no record from which anything can be learned."""

from collections.abc import Mapping, Sequence

import numpy as np

from datarax.core.element_batch import Batch
from datarax.pipeline.ledger import Ledger

_SHOWN = 3  # bad records


def has_pair(batch: Batch, towers: Sequence[str]) -> bool:
    """Whether a row is valid and has two of the fields, without which its loss is 0."""
    size = batch.batch_size
    there = [np.broadcast_to(True if x is None else x, size) for x in map(batch.where, towers)]
    return bool((np.sum(there, axis=0) >= 2).any())


def unusable(
    what: str, towers: Sequence[str], ledger: Ledger, *, counts: Mapping[str, int] | None = None
) -> ValueError:
    """The error for records of which none has two of the fields, with the reasons of the first.

    Args:
      what: the records are for: "to train on".
      towers: the fields.
      ledger: the bad records that were met.
      counts: by field, how many of the records that can be read have it.

    Example:
      >>> print(unusable("to show", ["a", "b"], Ledger(None), counts={"a": 4, "b": 0}))
      no record to show has two of ['a', 'b']: 4 have a, 0 have b; none is bad: does `from` in \
[fields] name what they have? `datarax inspect` shows it
    """
    said = f"no record {what} has two of {list(towers)}"
    if counts is not None and any(counts.values()):
        said += ": " + ", ".join(f"{count} have {name}" for name, count in counts.items())
    if not ledger.total:
        return ValueError(
            f"{said}; none is bad: does `from` in [fields] name what they have? "
            "`datarax inspect` shows it"
        )
    first = "".join(f"\n  {fault}" for fault in ledger.faults[:_SHOWN])
    return ValueError(f"{said}; {ledger.summary()}. The first:{first}")
