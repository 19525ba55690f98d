"""Which record comes when: a function of seed, epoch and position alone."""

import functools
from typing import Any

import grain
import numpy as np


def epoch_order(
    records: int, *, epoch: int, seed: int, shuffle: bool, start: int = 0, stop: int | None = None
) -> np.ndarray:
    """The record numbers at positions `start` to `stop` of an epoch: Grain's shuffle, or 0 to n-1.

    Each position is computed by itself, in the same time and memory however large the epoch.

    Args:
      records: how many there are, n.
      epoch: which epoch.
      seed: of the order, in [0, 2^32).
      shuffle: a new order each epoch; without it 0 to n-1.
      start, stop: positions in [0, n]; `None` is n.

    Returns:
      int64 [stop - start].

    Example:
      >>> whole = epoch_order(10**12, epoch=3, seed=0, shuffle=True, start=5, stop=7)
      >>> whole[1] == epoch_order(10**12, epoch=3, seed=0, shuffle=True, start=6, stop=8)[0]
      np.True_
    """
    positions = range(start, records if stop is None else stop)
    if not shuffle:
        return np.arange(positions.start, positions.stop)
    shuffled = _shuffled(records, seed)
    first = epoch * records
    return np.array([shuffled[first + position] for position in positions], np.int64)


@functools.lru_cache(maxsize=8)
def _shuffled(records: int, seed: int) -> Any:
    """A recipe of constant size, no array."""
    return grain.MapDataset.range(records).seed(seed).shuffle().repeat()
