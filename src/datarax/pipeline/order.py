"""Which record comes when: a function of seed, epoch and position alone."""

import functools

import numpy as np

CHUNK = 2**10  # positions of an epoch that are computed together
SMALLEST_BLOCK = 16  # bits; permutations of fewer show patterns
ROUNDS = 4


def epoch_order(
    records: int, *, epoch: int, seed: int, shuffle: bool, start: int = 0, stop: int | None = None
) -> np.ndarray:
    """The record numbers at positions `start` to `stop` of an epoch: shuffled, or 0 to n-1.

    The order is that of `grain.MapDataset.range(n).seed(seed).shuffle().repeat()`, but where n is
    2^16 + 1, 2^18 + 1 and so on: there Grain (0.2.18) gives one record twice and another never. It
    is a block cipher (Simon, https://eprint.iacr.org/2013/404) walked until it gives a record, so
    any position is reached in the same time and memory however large the epoch.

    Args:
      records: how many there are, n, in [1, 2^62].
      epoch: which epoch.
      seed: of the order, in [0, 2^32).
      shuffle: a new order each epoch; without it 0 to n-1.
      start, stop: positions in [0, n]; `None` is n.

    Returns:
      int64 [stop - start].

    Raises:
      ValueError: if they are not positions of the epoch, or there are more records.

    Example:
      >>> whole = epoch_order(10**12, epoch=3, seed=0, shuffle=True, start=5, stop=7)
      >>> whole[1] == epoch_order(10**12, epoch=3, seed=0, shuffle=True, start=6, stop=8)[0]
      np.True_
    """
    stop = records if stop is None else stop
    if records > 2**62:
        raise ValueError(f"expected at most 2^62 records, got {records}")
    if not 0 <= start <= stop <= records:
        raise ValueError(f"expected 0 <= start <= stop <= {records}, got {start} and {stop}")
    if not shuffle or records == 1:
        return np.arange(start, stop)
    key = (_first_key(seed) + epoch) % 2**32
    if records <= 2**SMALLEST_BLOCK:
        return _small_order(records, key)[start:stop].copy()
    chunks = range(start // CHUNK, -(-stop // CHUNK))
    parts = [_chunk(records, key, number) for number in chunks] or [np.zeros(0, np.int64)]
    offset = start // CHUNK * CHUNK
    return np.concatenate(parts)[start - offset : stop - offset]


@functools.lru_cache
def _first_key(seed: int) -> int:
    return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])


@functools.lru_cache(maxsize=4)
def _small_order(records: int, key: int) -> np.ndarray:
    """The whole order of so few that most of the cipher's numbers are none of theirs."""
    encrypted = _encrypt(np.arange(2**SMALLEST_BLOCK), key, bits=SMALLEST_BLOCK)
    # where the walk from a number is after 2^k steps, stopping at the first record
    walked = np.where(np.arange(2**SMALLEST_BLOCK) < records, np.arange(len(encrypted)), encrypted)
    for _ in range(SMALLEST_BLOCK):
        walked = walked[walked]
    return walked[encrypted[:records]]


@functools.lru_cache(maxsize=8)
def _chunk(records: int, key: int, number: int) -> np.ndarray:
    bits = (records - 1).bit_length()
    bits += bits % 2
    order = np.arange(number * CHUNK, min((number + 1) * CHUNK, records))
    away = np.arange(len(order))
    while len(away):
        order[away] = _encrypt(order[away], key, bits=bits)
        away = away[order[away] >= records]
    return order


def _encrypt(numbers: np.ndarray, key: int, *, bits: int) -> np.ndarray:
    """A permutation of the numbers below 2^bits, int64; `bits` is even and at least 16."""
    word = bits // 2
    mask = (1 << word) - 1
    left, right = numbers >> word, numbers & mask
    for round_key in _round_keys(key):
        twice = right << word | right  # a word of it is the right one, turned
        mixed = twice >> (word - 1) & twice >> (word - 8) ^ twice >> (word - 2)
        left, right = right, (left ^ mixed ^ round_key) & mask
    return left << word | right


@functools.lru_cache(maxsize=8)
def _round_keys(key: int) -> tuple[int, ...]:
    """As C++ defines `std::seed_seq{key}.generate` for four 32-bit words."""
    full = 2**32 - 1
    words = [0x8B8B8B8B] * ROUNDS

    def stirred(x: int) -> int:
        return x ^ x >> 27

    for k in range(ROUNDS):
        after, third, before = ((k + step) % ROUNDS for step in (1, 2, 3))
        first = 1664525 * stirred(words[k] ^ words[after] ^ words[before]) & full
        second = first + (1 if k == 0 else k + key if k == 1 else k) & full
        words[after] = words[after] + first & full
        words[third] = words[third] + second & full
        words[k] = second
    for k in range(ROUNDS):
        after, third, before = ((k + step) % ROUNDS for step in (1, 2, 3))
        first = 1566083941 * stirred(words[k] + words[after] + words[before] & full) & full
        second = first - k & full
        words[after] ^= first
        words[third] ^= second
        words[k] = second
    return tuple(words)
