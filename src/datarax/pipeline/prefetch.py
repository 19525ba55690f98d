"""Work done ahead on threads, its results in order."""

import collections
import concurrent.futures
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Job(Generic[T]):
    """One result, made of parts that may run at once.

    Attributes:
      parts: at least one; they run on threads, in any order.
      finish: makes the result when all parts are through, on the thread of the last.
    """

    parts: Sequence[Callable[[], None]]
    finish: Callable[[], T]


class Prefetch(Generic[T]):
    """The results of jobs, in their order, made ahead.

    An error of a job is raised where its result would have come. The threads end on `close`, when
    the object is let go, and when the program ends; what is running then runs to its end.

    Args:
      jobs: taken one after another, as there is room.
      threads: how many; 0 does each job when its result is asked for.
      ahead: jobs that may be under way or done before their result is asked for.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> jobs = (Job([lambda: None], lambda i=i: i * i) for i in range(4))
      >>> with Prefetch(jobs, threads=2, ahead=2) as results:
      ...     list(results)
      [0, 1, 4, 9]
    """

    def __init__(self, jobs: Iterator[Job[T]], *, threads: int, ahead: int) -> None:
        if threads < 0:
            raise ValueError(f"threads must be at least 0, got {threads}")
        if ahead < 1:
            raise ValueError(f"ahead must be at least 1, got {ahead}")
        self._jobs = jobs
        self._ahead = ahead if threads else 1
        self._pool = (
            concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="datarax-read")
            if threads
            else None
        )
        self._waiting: collections.deque[concurrent.futures.Future[T]] = collections.deque()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        self._fill()
        if not self._waiting:
            raise StopIteration
        result = self._waiting[0].result()  # an interrupt here loses nothing
        self._waiting.popleft()
        if self._pool is not None:
            self._fill()
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Begin nothing more, wait for what is running, and end the threads."""
        self._jobs = iter(())
        self._waiting.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _fill(self) -> None:
        while len(self._waiting) < self._ahead:
            job = next(self._jobs, None)
            if job is None:
                return
            self._waiting.append(_start(job, self._pool))


def _start(
    job: Job[T], pool: concurrent.futures.ThreadPoolExecutor | None
) -> "concurrent.futures.Future[T]":
    done: concurrent.futures.Future[T] = concurrent.futures.Future()
    errors: dict[int, BaseException] = {}
    left = threading.Semaphore(len(job.parts) - 1)

    def run(number: int) -> None:
        try:
            job.parts[number]()
        except BaseException as error:
            errors[number] = error
        if left.acquire(blocking=False):
            return  # not the last
        try:
            if errors:
                raise errors[min(errors)]
            result = job.finish()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(result)

    for number in range(len(job.parts)):
        if pool is None:
            run(number)
        else:
            pool.submit(run, number)
    return done
