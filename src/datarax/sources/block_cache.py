"""Decoded blocks of files, the last used ones in memory, each made once however many ask."""

import collections
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any

CACHE_BYTES = 2**29


class BlockCache:
    """Values by key, of which the last used are kept, up to a number of bytes.

    Args:
      limit: bytes. The value that was made last is kept, however large it is.

    Example:
      >>> cache = BlockCache(limit=10)
      >>> [cache.get(n, lambda n=n: (n * n, 6)) for n in (2, 3, 2)]
      [4, 9, 4]
      >>> cache.made
      3
    """

    def __init__(self, *, limit: int = CACHE_BYTES) -> None:
        self.limit = limit
        self.made = 0
        self.held = 0
        self._kept: collections.OrderedDict[Hashable, tuple[Any, int]] = collections.OrderedDict()
        self._coming: dict[Hashable, Future[Any]] = {}
        self._gone: collections.deque[Hashable] = collections.deque()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], tuple[Any, int]]) -> Any:
        """The value of `key`; `make` gives it and its bytes where it is not there.

        Threads that ask at the same time wait for the first one's; an error reaches all of them and
        is not kept.
        """
        with self._lock:
            if self._gone:
                self._sweep()
            if (kept := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return kept[0]
            coming = self._coming.get(key)
            mine = coming is None
            if coming is None:
                coming = self._coming[key] = Future()
        if mine:
            self._make(key, make, coming)
        return coming.result()

    def drop(self, owner: Hashable) -> None:
        """Forget the values whose keys are pairs with this owner, now or when the cache is used.

        May be called from a finalizer, which can run in a thread that holds the lock.
        """
        self._gone.append(owner)
        if self._lock.acquire(blocking=False):
            try:
                self._sweep()
            finally:
                self._lock.release()

    def _sweep(self) -> None:
        for _ in range(len(self._gone)):
            owner = self._gone.popleft()
            for key in [k for k in self._kept if isinstance(k, tuple) and k[0] == owner]:
                self.held -= self._kept.pop(key)[1]

    def _make(
        self, key: Hashable, make: Callable[[], tuple[Any, int]], coming: "Future[Any]"
    ) -> None:
        try:
            value, size = make()
        except BaseException as error:
            with self._lock:
                del self._coming[key]
            coming.set_exception(error)
            return
        with self._lock:
            self.made += 1
            self._kept[key] = value, size
            self.held += size
            while self.held > self.limit and len(self._kept) > 1:
                self.held -= self._kept.popitem(last=False)[1][1]
            del self._coming[key]
        coming.set_result(value)


SHARED = BlockCache()
