"""Blocks are made once, kept up to a number of bytes, and errors are not kept."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from datarax.sources.block_cache import BlockCache


def test_the_last_used_are_kept_up_to_the_limit():
    cache = BlockCache(limit=10)
    made = []

    def get(key, size=4):
        return cache.get(key, lambda: (made.append(key) or key, size))

    assert [get(key) for key in "abab"] == list("abab")
    assert (made, cache.held) == (["a", "b"], 8)
    get("c")  # b was used after a
    get("b")
    assert (made, cache.held) == (["a", "b", "c"], 8)
    get("a")
    assert made == ["a", "b", "c", "a"]
    get("large", 50)
    assert cache.held == 50
    get("large", 50)
    assert made[4:] == ["large"]


def test_threads_that_ask_at_once_get_what_one_of_them_makes():
    cache = BlockCache()

    def make():
        threading.Event().wait(0.05)
        return object(), 1

    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda _: cache.get("a", make), range(8)))
    assert len({id(value) for value in values}) == 1
    assert cache.made == 1


def test_an_error_reaches_who_asked_and_is_not_kept():
    cache = BlockCache()

    def fail():
        raise OSError("gone")

    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            cache.get("a", fail)
    assert cache.get("a", lambda: (1, 1)) == 1


def test_what_an_owner_has_is_dropped_with_it():
    cache = BlockCache()
    one, two = object(), object()
    for owner in (one, two):
        cache.get((owner, 0), lambda: (1, 5))
    cache.drop(one)
    assert cache.held == 5
    cache.get((two, 0), lambda: (1, 5))
    assert cache.made == 2


def test_an_owner_may_go_while_the_cache_is_in_use():
    """The collector may run a finalizer anywhere, in the thread that holds the lock as well."""
    cache = BlockCache()
    one, two = object(), object()
    cache.get((one, 0), lambda: (1, 5))

    class Key(tuple):
        __slots__ = ()

        def __hash__(self):
            cache.drop(one)
            return super().__hash__()

    done = threading.Thread(target=lambda: cache.get(Key((two, 0)), lambda: (1, 7)), daemon=True)
    done.start()
    done.join(5)
    assert not done.is_alive()
    cache.get((two, 1), lambda: (1, 1))
    assert cache.held == 8
