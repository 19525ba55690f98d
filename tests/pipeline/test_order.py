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


@pytest.mark.parametrize("records", [2**16, 2**16 + 2, 2**17 + 1, 10**9, 2**40 + 3])
def test_large_sets_are_grains_too(records):
    shuffled = grain.MapDataset.range(records).seed(11).shuffle().repeat()
    for start in (0, 1000, records - 1500):
        rows = epoch_order(
            records, epoch=4, seed=11, shuffle=True, start=start, stop=start + 1500
        ).tolist()
        assert rows[::37] == [shuffled[4 * records + start + at] for at in range(0, 1500, 37)]


@pytest.mark.parametrize("records", [2**16 - 1, 2**16, 2**16 + 1, 2**18 + 1])
def test_each_record_comes_once(records):
    order = epoch_order(records, epoch=2, seed=3, shuffle=True)
    assert np.array_equal(np.sort(order), np.arange(records))


def test_the_end_of_the_longest_epoch_is_reached():
    for records in (2**53 + 1, 2**61 + 1, 2**62):
        rows = epoch_order(records, epoch=0, seed=0, shuffle=True, start=records - 30)
        assert len(set(rows.tolist())) == 30
        assert 0 <= rows.min() <= rows.max() < records


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2), (0, 51), (51, 51)])
def test_positions_beyond_the_epoch_are_refused(start, stop):
    for shuffle in (True, False):
        with pytest.raises(ValueError, match=r"expected 0 <= start <= stop <= 50, got"):
            epoch_order(50, epoch=0, seed=0, shuffle=shuffle, start=start, stop=stop)


def test_more_records_than_can_be_ordered_are_refused():
    with pytest.raises(ValueError, match=r"at most 2\^62 records, got 4611686018427387905"):
        epoch_order(2**62 + 1, epoch=0, seed=0, shuffle=True, start=0, stop=1)


def test_parts_of_an_epoch_are_not_shared():
    first = epoch_order(40, epoch=0, seed=0, shuffle=True)
    expected = first.copy()
    first[:] = 0
    assert np.array_equal(epoch_order(40, epoch=0, seed=0, shuffle=True), expected)
    large = epoch_order(10**6, epoch=0, seed=0, shuffle=True, start=0, stop=5)
    expected = large.copy()
    large[:] = 0
    again = epoch_order(10**6, epoch=0, seed=0, shuffle=True, start=0, stop=5)
    assert np.array_equal(again, expected)
    assert len(epoch_order(10**6, epoch=0, seed=0, shuffle=True, start=9, stop=9)) == 0


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
