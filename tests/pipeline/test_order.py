import tracemalloc

import grain
import numpy as np
import pytest

from datarax.pipeline import epoch_order


@pytest.mark.parametrize(
    ("records", "seed", "epoch"), [(1, 0, 0), (50, 3, 2), (1000, 2**32 - 1, 7), (9, 5, 2**32 - 1)]
)
def test_each_position_is_grains(records, seed, epoch):
    shuffled = grain.MapDataset.range(records).seed(seed).shuffle().repeat()
    expected = [shuffled[epoch * records + position] for position in range(records)]
    whole = epoch_order(records, epoch=epoch, seed=seed, shuffle=True)
    assert whole.tolist() == expected
    assert whole.dtype == np.int64
    assert sorted(whole) == list(range(records))
    start, stop = records // 3, records - records // 4
    part = epoch_order(records, epoch=epoch, seed=seed, shuffle=True, start=start, stop=stop)
    assert part.tolist() == expected[start:stop]


def test_every_seed_and_epoch_has_its_own_order():
    orders = {
        tuple(epoch_order(50, epoch=epoch, seed=seed, shuffle=True))
        for seed in (0, 1)
        for epoch in (0, 1, 2)
    }
    assert len(orders) == 6


def test_without_shuffle_it_counts():
    assert epoch_order(5, epoch=7, seed=1, shuffle=False).tolist() == [0, 1, 2, 3, 4]
    assert epoch_order(5, epoch=7, seed=1, shuffle=False, start=3, stop=5).tolist() == [3, 4]


def test_memory_does_not_grow_with_the_epoch():
    epoch_order(10**12, epoch=0, seed=0, shuffle=True, start=0, stop=1)
    tracemalloc.start()
    try:
        rows = epoch_order(10**12, epoch=5, seed=0, shuffle=True, start=10**11, stop=10**11 + 8)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(set(rows.tolist())) == 8
    assert peak < 100_000
