"""From a source to batches: exact to the record, the same on any number of hosts and threads."""

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

import jax
import numpy as np

from datarax.core.data_source import DataSourceModule
from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule
from datarax.pipeline.assembly import Assembler, Rows
from datarax.pipeline.caps import ErrorCaps, ErrorCounter
from datarax.pipeline.ledger import Ledger
from datarax.pipeline.position import check_state, pipeline_settings
from datarax.pipeline.prefetch import Job, Prefetch
from datarax.pipeline.report import describe_pipeline
from datarax.pipeline.workers import Stretch, WorkerReads
from datarax.sources.record import RecordError
from datarax.sources.traits import lost_parts

Remainder = Literal["pad", "drop"]
OnError = Literal["mask", "raise"]


@dataclasses.dataclass(frozen=True)
class _Read:
    """What a step has read, and where it belongs."""

    place: tuple[int, int]
    rows: Rows
    batch: Batch


class Pipeline:
    """An endless iterator over one host's part of the batches of a source, epoch after epoch.

    Batch `k` of an epoch holds the records at positions `k * batch_size` to `(k + 1) * batch_size`
    of its order; host `h` has the `h`-th of `hosts` equal parts of it. A record that cannot be
    read is a row of zeros that is not valid, so shapes and steps are the same everywhere. Each
    batch has `valid_mask`, `record_index`, `epoch`, a presence entry for each optional field, and
    the records' metadata. `for batch in pipeline` gives the rest of the epoch, `len` its steps.

    Args:
      source: where the records are.
      operators: called one after another on each batch.
      batch_size: rows over all hosts; a multiple of `hosts`.
      seed: of the order, in [0, 2^32).
      shuffle: a new order each epoch; without it 0 to n-1.
      remainder: "pad" fills the last batch of an epoch with rows that are not valid, "drop" leaves
        it out if it is not full.
      host, hosts: which part is read here, of how many; `None` asks `jax.distributed`.
      on_error: "mask" goes on over bad records, "raise" stops at the first.
      error_caps: how many are too many.
      optional: fields that a record may lack; `None` asks the source. One that does not say may
        lack any.
      fit_lengths: a field that its source pads to one of several lengths has in each batch the
        shortest that holds all rows. With several hosts it has the longest always, since a host
        does not know the others' rows; what is beyond is masked.
      threads: that read and decode; 0 reads when asked; `None` is one for each processor, up to 8.
      workers: processes (Grain's) that read in place of this one's threads, each with `threads` of
        its own, `None` being 1; 0 is none. For decoding that does not let other threads run; the
        source is pickled, and a program needs its `if __name__ == "__main__":`.
      ahead: batches read before they are asked for, and so kept in memory; while one is waited
        for, it is not counted.
      ledger: the file that bad records are listed in, or a `Ledger`. With several hosts each but
        the first has its own, `quarantine.host1.jsonl`. `None` keeps the list in memory.
      sharding: of the global arrays, the batch on axis 0; they are put on the devices ahead.
        `None` leaves NumPy arrays.

    Raises:
      ValueError: if an argument is out of range, or there is not one batch in an epoch.

    Example:
      >>> from datarax.sources import MemorySource
      >>> source = MemorySource({"x": np.arange(3)})
      >>> pipeline = Pipeline(source, batch_size=2, seed=0, shuffle=False)
      >>> [(batch["x"].tolist(), batch.valid_mask.tolist()) for batch in pipeline]
      [([0, 1], [True, True]), ([2, 0], [True, False])]
      >>> pipeline.state()["epoch"], pipeline.state()["step"]
      (1, 0)
    """

    def __init__(
        self,
        source: DataSourceModule,
        operators: Sequence[OperatorModule | Callable[[Batch], Batch]] = (),
        *,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        remainder: Remainder = "pad",
        host: int | None = None,
        hosts: int | None = None,
        on_error: OnError = "mask",
        error_caps: ErrorCaps | None = None,
        optional: Sequence[str] | None = None,
        fit_lengths: bool = True,
        threads: int | None = None,
        workers: int = 0,
        ahead: int = 2,
        ledger: str | Path | Ledger | None = None,
        sharding: jax.sharding.Sharding | None = None,
    ) -> None:
        self.source = source
        self.operators = tuple(operators)
        self.hosts = jax.process_count() if hosts is None else hosts
        self.host = jax.process_index() if host is None else host
        self.on_error = on_error
        self.threads = (1 if workers else _processors()) if threads is None else threads
        self.workers = workers
        self.ahead = ahead
        self.sharding = sharding
        self.assembler = Assembler(
            source, optional=optional, fit_lengths=fit_lengths and self.hosts == 1
        )
        self.settings = pipeline_settings(
            source,
            optional=self.assembler.optional,
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
            remainder=remainder,
        )
        self._check()
        self.steps_per_epoch = self._count_steps()
        self.epoch = 0
        self.step = 0
        self.skipped = 0
        self.counter = ErrorCounter(ErrorCaps() if error_caps is None else error_caps)
        self.ledger = ledger if isinstance(ledger, Ledger) else Ledger(self._own_file(ledger))
        if self.host == 0:
            self.ledger.add(lost_parts(source))
        self._reads: Prefetch[_Read] | WorkerReads[_Read] | None = None
        self._noted: tuple[int, int] | None = None  # the last step whose faults are counted

    def __len__(self) -> int:
        """The steps of an epoch, the same on every host."""
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the epoch; after its last batch, the whole next one."""
        epoch = self.epoch
        while self.epoch == epoch:
            yield next(self)

    def __next__(self) -> Batch:
        """The next batch, over the end of epochs.

        Raises:
          RecordError: for a bad record, with `on_error="raise"`.
          TooManyErrors: if bad records exceed a cap.
          OSError: if a file cannot be read.
        """
        read = self._next_read()
        if read.place != self._noted:  # an operator may have failed after the count
            self._note_faults(read.rows)
            self._noted = read.place
        batch = read.batch
        for operator in self.operators:
            batch = operator(batch)
        self.step += 1
        if self.step == self.steps_per_epoch:
            self.epoch, self.step = self.epoch + 1, 0
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads and processes. The next batch starts them again."""
        if self._reads is not None:
            self._reads.close()
            self._reads = None

    def state(self) -> dict[str, Any]:
        """Where the next batch is, and all that decides what it holds: plain values for JSON."""
        return {"epoch": self.epoch, "step": self.step, "hosts": self.hosts, **self.settings}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken, on any number of hosts.

        Raises:
          ValueError: listing every difference; nothing is changed then.
        """
        check_state(state, settings=self.settings, steps=self.steps_per_epoch)
        self.close()
        self.epoch, self.step, self._noted = state["epoch"], state["step"], None

    def describe(self, *, sample: int = 32) -> str:
        """Records, steps, fields and guarantees, to be read before training.

        Args:
          sample: records that are read, spread evenly, to see how often fields are there.
        """
        return describe_pipeline(
            self.assembler,
            operators=self.operators,
            settings=self.settings,
            steps=self.steps_per_epoch,
            hosts=self.hosts,
            sample=sample,
        )

    def _check(self) -> None:
        settings = self.settings
        if settings["batch_size"] < 1:
            raise ValueError(f"batch_size must be at least 1, got {settings['batch_size']}")
        if not 0 <= settings["seed"] < 2**32:
            raise ValueError(f"seed must be in [0, 2**32), got {settings['seed']}")
        for name, value, choices in (
            ("remainder", settings["remainder"], get_args(Remainder)),
            ("on_error", self.on_error, get_args(OnError)),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {value!r}")
        if self.hosts < 1 or not 0 <= self.host < self.hosts:
            raise ValueError(f"host must be in [0, hosts), got {self.host} of {self.hosts}")
        if settings["batch_size"] % self.hosts:
            raise ValueError(
                f"batch_size counts the rows of all hosts: {settings['batch_size']} "
                f"is no multiple of {self.hosts} hosts"
            )
        if self.threads < 0 or self.ahead < 1 or self.workers < 0:
            raise ValueError(
                "expected threads >= 0, workers >= 0 and ahead >= 1, got "
                f"{self.threads}, {self.workers} and {self.ahead}"
            )
        narrowed = [
            ".".join(path)
            for path, spec in self.assembler.spec.items()
            if jax.dtypes.canonicalize_dtype(spec.dtype) != spec.dtype
        ]
        if self.sharding is not None and narrowed:
            raise ValueError(
                f"{narrowed} have 64 bits, which the devices would cut: give the source 32, set "
                "jax_enable_x64, or leave sharding out"
            )

    def _count_steps(self) -> int:
        records, size = self.settings["records"], self.settings["batch_size"]
        steps = records // size if self.settings["remainder"] == "drop" else -(-records // size)
        if steps == 0:
            raise ValueError(
                f"{records} records give no full batch: batch_size {size} is too large"
            )
        return steps

    def _own_file(self, path: str | Path | None) -> Path | None:
        if path is None or self.host == 0:
            return None if path is None else Path(path)
        return Path(path).with_suffix(f".host{self.host}{Path(path).suffix}")

    def _next_read(self) -> _Read:
        """What was read for the step that the pipeline stands at."""
        if self._reads is None:
            self._reads = self._start()
        try:
            read = next(self._reads)
        except BaseException:
            self.close()  # the step is still to be taken
            raise
        if read.place != (self.epoch, self.step):  # a step was broken off after its reading
            self.close()
            return self._next_read()
        return read

    def _start(self) -> "Prefetch[_Read] | WorkerReads[_Read]":
        # The threads must not keep the pipeline alive: what they get knows its parts only.
        stretch = Stretch(self.settings, self.steps_per_epoch, self.host, self.hosts)
        finish = functools.partial(
            _finish, self.assembler, steps=self.steps_per_epoch, sharding=self.sharding
        )
        first = self.epoch * self.steps_per_epoch + self.step
        if self.workers:
            return WorkerReads(
                self.assembler,
                stretch,
                finish=finish,
                first=first,
                workers=self.workers,
                threads=max(1, self.threads),
                ahead=self.ahead,
            )
        jobs = _make_jobs(
            self.assembler, stretch, finish=finish, first=first, pieces=max(1, self.threads)
        )
        return Prefetch(jobs, threads=self.threads, ahead=self.ahead)

    def _note_faults(self, rows: Rows) -> None:
        faults = [rows.faults[row] for row in sorted(rows.faults)]
        self.ledger.add(faults)
        self.skipped += len(rows.skipped)
        if self.on_error == "raise" and faults:
            raise RecordError(faults[0])
        if not faults:
            self.counter.add_good(len(rows.records))
            return
        for row in range(len(rows.records)):
            self.counter.add(rows.faults.get(row))


def _make_jobs(
    assembler: Assembler,
    stretch: Stretch,
    *,
    finish: Callable[[int, Rows], _Read],
    first: int,
    pieces: int,
) -> Iterator[Job[_Read]]:
    """The reading of every step from `first` on, in `pieces` that may run at once."""
    for number in itertools.count(first):
        rows = assembler.empty(stretch.records(number), stretch.size)
        count = len(rows.records)
        ends = [count * piece // pieces for piece in range(pieces + 1)]
        parts = [
            functools.partial(assembler.fill, rows, a, b)
            for a, b in itertools.pairwise(ends)
            if a < b
        ]
        nothing = functools.partial(assembler.fill, rows, 0, 0)
        yield Job(parts or [nothing], functools.partial(finish, number, rows))


def _finish(
    assembler: Assembler,
    number: int,
    rows: Rows,
    *,
    steps: int,
    sharding: jax.sharding.Sharding | None,
) -> _Read:
    place = divmod(number, steps)
    batch = assembler.batch(rows, epoch=place[0], wide=len(assembler.source) > 2**32)
    return _Read(place, rows, batch if sharding is None else _put(batch, sharding))


def _put(batch: Batch, sharding: jax.sharding.Sharding) -> Batch:
    """This host's rows as its part of arrays over all hosts."""

    def put(x: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, x)

    data, presence = jax.tree.map(put, (batch.data, batch.presence))
    return batch.replace(
        data=data,
        presence=presence,
        valid_mask=put(batch.valid_mask),
        record_index=put(batch.record_index),
    )


def _processors() -> int:
    return min(8, os.cpu_count() or 1)
