"""Reading in processes of Grain's, the results in order."""

import contextlib
import dataclasses
import functools
import multiprocessing
import os
import secrets
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np

from datarax.pipeline.assembly import Assembler, Rows
from datarax.pipeline.order import epoch_order

FOREVER = 2**62  # steps
PATIENCE = 1.0  # seconds that Grain has to let go of memory

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Which records each step reads, from the pipeline's settings.

    Attributes:
      settings: of the pipeline.
      steps: in an epoch.
      host, hosts: which part of a batch is read.
    """

    settings: dict[str, Any]
    steps: int
    host: int
    hosts: int

    @property
    def size(self) -> int:
        """Rows of this host's part."""
        return self.settings["batch_size"] // self.hosts

    def records(self, number: int) -> np.ndarray:
        """The record numbers of step `number`, counted over epochs; fewer at an epoch's end."""
        epoch, step = divmod(number, self.steps)
        records, size = self.settings["records"], self.size
        first = min(step * self.settings["batch_size"] + self.host * size, records)
        return epoch_order(
            records,
            epoch=epoch,
            seed=self.settings["seed"],
            shuffle=self.settings["shuffle"],
            start=first,
            stop=min(first + size, records),
        )


@dataclasses.dataclass(frozen=True)
class ReadStep:
    """Reads a step in a worker: the rows as a tree that Grain hands on through shared memory."""

    assembler: Assembler
    stretch: Stretch

    def __call__(self, number: int) -> dict[str, Any]:
        """The rows of step `number`."""
        end_with_parent()
        rows = self.assembler.empty(self.stretch.records(number), self.stretch.size)
        self.assembler.fill(rows, 0, len(rows.records))
        return {
            "number": number,
            "records": rows.records,
            "data": list(rows.data.values()),
            "presence": list(rows.presence.values()),
            "valid": rows.valid,
            "about": _Whole((rows.metadata, rows.faults, rows.skipped)),
        }


@dataclasses.dataclass(frozen=True)
class _Whole:
    """What is to be handed on in one piece."""

    content: Any


@dataclasses.dataclass(frozen=True)
class SharedNames:
    """Names for the shared memory of steps, so that what a killed worker had can be found.

    Grain would make names that only the worker knows.

    Attributes:
      mark: of one reading, that no other has.
    """

    mark: str

    def __call__(self, step: dict[str, Any]) -> dict[str, Any]:
        """The rows of a step, as `ReadStep` gives them, in shared memory."""
        import grain.multiprocessing

        place = 0

        def share(array: np.ndarray) -> np.ndarray:
            nonlocal place
            name = self.name(step["number"], place)
            place += 1
            if not array.nbytes:
                return array
            memory = shared_memory.SharedMemory(name, create=True, size=array.nbytes)
            shared = grain.multiprocessing.SharedMemoryArray.from_shared_memory(
                memory, array.shape, array.dtype
            )
            np.copyto(shared, array)
            return shared

        arrays = {"records": share(step["records"]), "valid": share(step["valid"])}
        lists = {name: list(map(share, step[name])) for name in ("data", "presence")}
        return {**step, **arrays, **lists}

    def name(self, number: int, place: int) -> str:
        """Of the array at a place in step `number`: short, as some systems take 30 characters."""
        return f"dx{self.mark}-{number:x}-{place:x}"

    def remove(self, numbers: range, *, arrays: int) -> None:
        """Remove what is there of steps of which nobody will hear, once all others let go of it."""
        names = [self.name(number, place) for number in numbers for place in range(arrays)]
        deadline = time.monotonic() + PATIENCE
        while left := list(filter(None, map(_attached, names))):
            late = time.monotonic() > deadline
            for memory in left:
                memory.close()
                if late:
                    _unlink(memory)
            if late:
                return
            time.sleep(PATIENCE / 100)


def _attached(name: str) -> shared_memory.SharedMemory | None:
    try:
        return shared_memory.SharedMemory(name)
    except FileNotFoundError:
        return None
    except ValueError:  # its maker was killed before it had a size: it cannot be mapped
        Path("/dev/shm", name).unlink(missing_ok=True)
        return None


def _unlink(memory: shared_memory.SharedMemory) -> None:
    with contextlib.suppress(FileNotFoundError):
        memory.unlink()


@functools.cache
def end_with_parent() -> None:
    """End this worker when the process that began it does, which Grain's do not if it is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: Any) -> None:
    parent.join()
    os._exit(1)  # nobody is left to be told


class WorkerReads(Generic[T]):
    """Steps read ahead by processes: `finish(number, rows)` in order, from `first` on.

    An error of a worker is raised where its result would have come, as is the end of a worker that
    was killed. The processes end on `close`, and when the object is let go; what a killed one had
    in shared memory goes on `close`. Grain keeps four threads for all its readers in this process,
    which remain.

    Args:
      assembler: what fills the rows; its source must go into another process (pickle).
      stretch: which records each step reads.
      finish: makes the result, in this process.
      first: the number of the first step, counted over epochs.
      workers: processes, at least 1.
      threads: that read and decode in each; at least 1.
      ahead: steps that a worker may have done before they are asked for.
    """

    def __init__(
        self,
        assembler: Assembler,
        stretch: Stretch,
        *,
        finish: Callable[[int, Rows], T],
        first: int,
        workers: int,
        threads: int,
        ahead: int,
    ) -> None:
        import grain
        from absl import flags

        if not flags.FLAGS.is_parsed():  # Grain asks one of its own, outside of an absl program too
            flags.FLAGS.mark_as_parsed()
        self._assembler = assembler
        self._finish = finish
        self._error: BaseException | None = None
        self._next = first
        # a worker's queue, as much again taken from it, and what goes in and out of these
        self._under_way = workers * (2 * ahead + 4)
        self._names = SharedNames(secrets.token_hex(4))
        dataset = grain.MapDataset.range(first, FOREVER).map(ReadStep(assembler, stretch))
        reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, ahead))
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=ahead)
        steps = dataset.to_iter_dataset(reading).map(self._names)  # shared at the last moment
        self._steps: Any = iter(steps.mp_prefetch(options))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        try:
            found = next(self._steps)
        except BaseException as error:
            self._error = error
            raise
        self._next = found["number"] + 1
        metadata, faults, skipped = found["about"].content
        rows = Rows(
            found["records"],
            dict(zip(self._assembler.spec, found["data"], strict=True)),
            dict(zip(self._assembler.optional, found["presence"], strict=True)),
            found["valid"],
            metadata,
            faults,
            skipped,
        )
        return self._finish(found["number"], rows)

    def close(self) -> None:
        """End the processes, and remove what they leave."""
        if self._steps is None:
            return
        self._steps.close()
        self._steps = None  # and with it what was read ahead
        first = self._next
        if self._error is not None:  # the frames of Grain's threads hold it, and the last step
            traceback.clear_frames(self._error.__traceback__)
            self._error = None
            first -= 1  # a name that is removed leaves its memory to whoever has it mapped
        arrays = 2 + len(self._assembler.spec) + len(self._assembler.optional)
        under_way = range(max(first, 0), self._next + self._under_way)
        self._names.remove(under_way, arrays=arrays)
