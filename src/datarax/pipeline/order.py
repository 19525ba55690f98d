"""Which record comes when: a function of seed, epoch and position alone."""

import functools

import grain
import numpy as np


@functools.lru_cache(maxsize=8)
def epoch_order(records: int, *, epoch: int, seed: int, shuffle: bool) -> np.ndarray:
    """The record numbers of one epoch in their order, Grain's shuffle or 0 to n-1: int64 [n].

    The result is shared between calls and read-only.
    """
    order = np.arange(records)
    if shuffle:
        shuffled = grain.MapDataset.range(records).seed(seed).shuffle().repeat()
        order = np.array([shuffled[epoch * records + position] for position in range(records)])
    order.setflags(write=False)
    return order
