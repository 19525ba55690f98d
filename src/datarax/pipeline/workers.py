"""Reading in processes of Grain's, the results in order."""

import dataclasses
import functools
import multiprocessing
import os
import threading
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

import numpy as np

from datarax.pipeline.assembly import Assembler, Rows
from datarax.pipeline.order import epoch_order

FOREVER = 2**62  # steps

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
    was killed. The processes end on `close`, and when the object is let go.

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
        dataset = grain.MapDataset.range(first, FOREVER).map(ReadStep(assembler, stretch))
        reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, ahead))
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=ahead)
        self._steps = iter(dataset.to_iter_dataset(reading).mp_prefetch(options))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        found = next(self._steps)
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
        """End the processes."""
        self._steps.close()
