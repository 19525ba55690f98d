"""Work done ahead on threads, its results in order."""

import collections
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("a job needs at least one part")


class Prefetch(Generic[T]):
    """The results of jobs, in their order, made ahead.

    An error of a job, or of `jobs`, is raised where its result would have come, at every try. The
    threads end on `close`, after the parts that they are at. They also end when the object is let
    go and when the program ends, but only when there is no more room.

    Args:
      jobs: taken one after another, as there is room, by whichever thread has nothing else to do.
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
        self._threads = threads
        self._work = _Work(jobs, ahead if threads else 0)
        self._asked: Future[T] | None = None
        self._is_broken = False
        self._pool = (
            ThreadPoolExecutor(threads, thread_name_prefix="datarax-read") if threads else None
        )

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        if self._is_broken:
            raise RuntimeError("this was broken off before its end: close it, and make another")
        try:
            if self._asked is None:
                self._asked = self._work.ask()
            asked = self._asked
            if asked is not None:
                self._go_on()
        except BaseException:
            self._is_broken = True  # a part may be lost, and to wait for it would never end
            raise
        if asked is None:
            raise StopIteration
        result = asked.result()  # an interrupt here loses nothing
        self._asked = None
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Begin nothing more, wait for what is running, and end the threads."""
        self._work.end()
        self._asked = None
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _go_on(self) -> None:
        """Set those threads to work that are not."""
        for _ in range(self._work.claim(max(1, self._threads))):
            if self._pool is None:
                self._work.run()
            else:
                self._pool.submit(self._work.run)


class _Work(Generic[T]):
    """What is to be done, and the results in their order."""

    # A thread that is through with a part takes the next by itself. To be handed each by the thread
    # that takes the results cost 2 to 3 % of the speed of two that decode small pictures.

    def __init__(self, jobs: Iterator[Job[T]], room: int) -> None:
        self._jobs = jobs
        self._room = room
        self._results: collections.deque[Future[T]] = collections.deque()
        self._parts: collections.deque[Callable[[], None]] = collections.deque()
        self._running = 0
        self._lock = threading.Lock()

    def ask(self) -> "Future[T] | None":
        """The next result, which makes room for one more; `None` at the end."""
        with self._lock:
            if not self._results:
                self._take_job()
            return self._results.popleft() if self._results else None

    def end(self) -> None:
        """Begin nothing more."""
        with self._lock:
            self._jobs = iter(())
            self._results.clear()
            self._parts.clear()

    def claim(self, most: int) -> int:
        """How many threads must `run` for `most` to be running."""
        with self._lock:
            if not self._parts and len(self._results) >= self._room:
                return 0
            new = most - self._running
            self._running = most
        return new

    def run(self) -> None:
        """Do parts until there is no room for more; called as often as was claimed."""
        while (part := self._next_part()) is not None:
            part()

    def _next_part(self) -> Callable[[], None] | None:
        with self._lock:
            if not self._parts and len(self._results) < self._room:
                self._take_job()
            if self._parts:
                return self._parts.popleft()
            self._running -= 1
        return None

    def _take_job(self) -> None:
        done: Future[T] = Future()
        try:
            job = next(self._jobs)
        except StopIteration:
            return
        except BaseException as error:
            self._jobs = iter(())
            done.set_exception(error)
        else:
            under_way = _UnderWay(job, done)
            self._parts.extend(functools.partial(under_way.do, n) for n in range(len(job.parts)))
        self._results.append(done)


class _UnderWay(Generic[T]):
    """A job whose parts are being done."""

    def __init__(self, job: Job[T], done: "Future[T]") -> None:
        self._job = job
        self._done = done
        self._errors: dict[int, BaseException] = {}
        self._left = len(job.parts)
        self._lock = threading.Lock()

    def do(self, number: int) -> None:
        """Do one of its parts, and finish the job if it is the last."""
        try:
            self._job.parts[number]()
        except BaseException as error:
            self._errors[number] = error
        with self._lock:
            self._left -= 1
            if self._left:
                return
        try:
            if self._errors:
                raise self._errors[min(self._errors)]
            result = self._job.finish()
        except BaseException as error:
            self._done.set_exception(error)
        else:
            self._done.set_result(result)
