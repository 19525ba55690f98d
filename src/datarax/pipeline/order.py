"""Which record comes when: a function of seed, epoch and position alone."""

import numpy as np
from grain.experimental import index_shuffle


def epoch_order(
    records: int, *, epoch: int, seed: int, shuffle: bool, start: int = 0, stop: int | None = None
) -> np.ndarray:
    """The record numbers at positions `start` to `stop` of an epoch: shuffled, or 0 to n-1.

    The order is that of `grain.MapDataset.range(n).seed(seed).shuffle().repeat()`. Each
    position is computed by itself, in the same time and memory however large the epoch.

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
    stop = records if stop is None else stop
    if not shuffle:
        return np.arange(start, stop)
    mixed = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
    options = {"max_index": records - 1, "seed": (mixed + epoch) % 2**32, "rounds": 4}
    rows = (index_shuffle(position, **options) for position in range(start, stop))
    return np.fromiter(rows, np.int64, stop - start)
