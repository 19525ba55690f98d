"""Training: from a configuration to a run directory, interruptible at every step."""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx
from tqdm import tqdm

from datarax.core.element_batch import Batch
from datarax.pipeline.caps import ErrorCaps
from datarax.pipeline.ledger import Ledger
from datarax.pipeline.pipeline import Pipeline
from datarax.train.checkpoints import Checkpoints
from datarax.train.config import FUSED, GLYPHS, TrainConfig
from datarax.train.data import open_split, with_fields
from datarax.train.evaluation import Table, directions_of, embedded, retrieval_rows
from datarax.train.interrupt import Interrupt
from datarax.train.metrics_log import append_line, cut_after
from datarax.train.model import build
from datarax.train.run import (
    Run,
    embed_rows,
    evaluate,
    load_run,
    split_params,
    split_table,
    write_evaluation,
)
from datarax.train.run_directory import (
    CHECKPOINTS,
    LEDGER_FILE,
    METRICS_FILE,
    TIMINGS_FILE,
    prepare,
)
from datarax.train.unusable import has_pair, unusable


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    threads: int | None = None,
    told: Callable[[str], Any] | None = None,
) -> Run:
    """Train on a data set, evaluate on its test split, and leave a run directory.

    The same configuration gives the same `metrics.jsonl` on the same machine, interrupted and
    resumed or not. Ctrl-C ends the step at hand, keeps it, and raises KeyboardInterrupt.

    Args:
      config: what to train.
      out: the run directory; made if it does not exist.
      resume: go on with the run in `out`, which must have been started with the same `config`.
      overwrite: delete the run in `out` first.
      threads: that read and decode, as of `Pipeline`; the run is the same with any.
      told: is given `Pipeline.describe()` before the first step.

    Raises:
      FileExistsError: if `out` is in use and neither `resume` nor `overwrite` is set.
      ValueError: if both are, if the run in `out` was started with another configuration, or if
        there is no training on the data: no records, fewer than two fields to embed, no record
        that has two of them, ...
      TooManyErrors: if more records are bad than the configuration allows.
      OSError: if a file cannot be read or written.
      KeyboardInterrupt: after Ctrl-C; the message says how to go on.
    """
    out = Path(out)
    config = with_fields(config)
    # first: a configuration that cannot be must cost no old run
    trainer = Trainer(config, out, threads=threads)
    prepare(out, config, resume=resume, overwrite=overwrite)
    if told is not None:
        told(trainer.pipeline.describe())
    trainer.keep_ledger()
    with (
        trainer.pipeline,
        Checkpoints(out / CHECKPOINTS, create=True) as checkpoints,
        Interrupt() as interrupt,
    ):
        trainer.restore(checkpoints)
        trainer.run(checkpoints, interrupt)
    run = load_run(out)
    write_evaluation(out, evaluate(run))
    return load_run(out)


class TrainState(NamedTuple):
    """What an update changes: parameters in a plain dict, and the state of the optimizer."""

    params: Any
    optimizer: Any


class Trainer:
    """The state of a training run between two steps.

    Args:
      config: what to train, its fields and towers written out (`data.with_fields`).
      out: the run directory, where the metrics go; nothing is written yet.
      threads: that read and decode; `None` is one for each processor, up to 8.
    """

    def __init__(self, config: TrainConfig, out: Path, *, threads: int | None = None) -> None:
        self.config = config
        self.out = out
        on_error: Any = config.on_error
        self.pipeline = Pipeline(
            open_split(config, "train"),
            batch_size=config.batch_size,
            seed=config.seed,
            remainder="drop" if config.data == GLYPHS else "pad",
            on_error=on_error,
            error_caps=ErrorCaps(fraction=config.error_fraction, consecutive=config.error_run),
            threads=threads,
            ledger=Ledger(None, is_logged=False),  # `keep_ledger` tells them
        )
        self.total = config.epochs * len(self.pipeline)
        self.validation = split_table(config, "validation", ledger=self.pipeline.ledger)
        self.headline = headline(config, self.validation, ledger=self.pipeline.ledger)
        self.schedule, self.optimizer = make_optimizer(
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            warmup_steps=min(config.warmup_steps, self.total - 1),
            total_steps=self.total,
        )
        self.key = jax.random.key(config.seed)
        self.graph, params, self.rest = split_params(build(config))
        self.state = TrainState(params, self.optimizer.init(params))
        self.step = 0
        self.best = -1.0
        self.is_learning = False  # whether a record so far had two of the towers

    def keep_ledger(self) -> None:
        """List bad records in the run directory, those met so far too."""
        ledger = Ledger(self.out / LEDGER_FILE)
        ledger.add(self.pipeline.ledger.faults)
        self.pipeline.ledger = ledger

    def restore(self, checkpoints: Checkpoints) -> None:
        """Go back to the last checkpoint, if there is one, and drop what was written after it."""
        if checkpoints.step("last") is not None:
            kept = checkpoints.restore("last", **self.state._asdict())
            self.state = TrainState(kept["params"], kept["optimizer"])
            progress = kept["progress"]
            self.step, self.best = progress["step"], progress["best"]
            self.is_learning = progress["is_learning"]
            self.pipeline.restore(kept["pipeline"])
        for name in (METRICS_FILE, TIMINGS_FILE):
            cut_after(self.out / name, self.step)

    def run(self, checkpoints: Checkpoints, interrupt: Interrupt) -> None:
        """Take the steps that are left.

        Raises:
          KeyboardInterrupt: if asked to stop, after the step at hand is kept.
          TooManyErrors: if more records are bad than the configuration allows.
          ValueError: after an epoch of which no record had two of the towers.
        """
        every = self.config.eval_every * len(self.pipeline)
        save_every = self.config.save_every or every
        started, first = time.perf_counter(), self.step
        with tqdm(
            total=self.total, initial=first, unit="step", disable=None, dynamic_ncols=True
        ) as bar:
            while self.step < self.total:
                metrics = self.take_step()
                if self.step % len(self.pipeline) == 0 and not self.is_learning:
                    raise unusable("to train on", self.config.towers, self.pipeline.ledger)
                if self.step % self.config.log_every == 0 or self.step == self.total:
                    rate = self.log(metrics, first, time.perf_counter() - started)
                    shown = {name: f"{float(value):.4f}" for name, value in metrics.items()}
                    if total := self.pipeline.ledger.total:
                        shown["bad"] = str(total)
                    bar.set_postfix(shown, records=f"{rate:.0f}/s")
                bar.update()
                if self.step % every == 0 or self.step == self.total:
                    self.validate(checkpoints)
                    self.save(checkpoints, "last")
                elif self.step % save_every == 0:
                    self.save(checkpoints, "last")
                if interrupt.requested:
                    self.save(checkpoints, "last")
                    raise KeyboardInterrupt(f"stopped at step {self.step}; --resume goes on")

    def take_step(self) -> dict[str, jax.Array]:
        """One batch, one update."""
        batch = next(self.pipeline).replace(metadata=None)
        self.is_learning = self.is_learning or has_pair(batch, self.config.towers)
        self.state, metrics = train_step(
            self.state,
            self.rest,
            batch,
            rng_key=jax.random.fold_in(self.key, self.step),
            graph=self.graph,
            optimizer=self.optimizer,
        )
        self.step += 1
        return metrics

    def log(self, metrics: dict[str, jax.Array], first: int, seconds: float) -> float:
        """Write a line of metrics and one of timings; the records per second since `first`."""
        record = {
            "kind": "train",
            "step": self.step,
            "epoch": (self.step - 1) // len(self.pipeline),
            **{name: float(value) for name, value in metrics.items()},
            "learning_rate": float(self.schedule(self.step - 1)),
        }
        append_line(self.out / METRICS_FILE, record)
        rate = (self.step - first) * self.config.batch_size / seconds
        timing = {"step": self.step, "seconds": seconds, "records_per_second": rate}
        append_line(self.out / TIMINGS_FILE, timing)
        return rate

    def validate(self, checkpoints: Checkpoints) -> None:
        """Write a line of validation metrics, and keep the model if it is the best so far.

        The metrics are means over the `headline` directions; the best has the highest `mrr`.
        """
        model = nnx.merge(self.graph, self.state.params, self.rest)
        table = embedded(self.validation, functools.partial(embed_rows, model))
        rows = retrieval_rows(table, self.headline)
        names = ("recall_at_1", "recall_at_5", "recall_at_10", "mrr", "median_rank")
        means = {name: float(np.mean([row[name] for row in rows])) for name in names}
        epoch = (self.step - 1) // len(self.pipeline)
        record = {"kind": "validation", "step": self.step, "epoch": epoch, **means}
        append_line(self.out / METRICS_FILE, record)
        if means["mrr"] > self.best:
            self.best = means["mrr"]
            self.save(checkpoints, "best")

    def save(self, checkpoints: Checkpoints, kind: str) -> None:
        """Keep this step."""
        checkpoints.save(
            kind,
            self.step,
            **self.state._asdict(),
            progress={
                "step": self.step,
                "best": self.best,
                "is_learning": self.is_learning,
            },
            pipeline=self.pipeline.state(),
        )


def headline(config: TrainConfig, table: Table, *, ledger: Ledger) -> list[tuple[str, str]]:
    """The directions that choose the best model: between glyphs and names, else between all towers.

    Of glyphs without one of these two, the directions between the first two towers.

    Raises:
      ValueError: if no record of `table` has two towers' fields, with what `ledger` says of it.
    """
    pairs = [pair for pair in directions_of(config) if len(table.rows(*pair)) > 0]
    if not pairs:
        counts = {name: len(table.rows(name)) for name in config.towers}
        raise unusable("to validate on", config.towers, ledger, counts=counts)
    if config.data != GLYPHS:
        return [pair for pair in pairs if not (config.fused_towers and FUSED in pair)]
    whole = ("image", "name") in pairs
    chosen = {"image", "name"} if whole else set(config.towers[:2])
    return [pair for pair in pairs if set(pair) == chosen]


@functools.lru_cache(maxsize=8)
def make_optimizer(
    *, learning_rate: float, weight_decay: float, warmup_steps: int, total_steps: int
) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """Linear warm-up and a cosine to 0; AdamW that lets biases, norms and temperature be.

    The same object for the same numbers, so that the step is compiled once.
    """
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup_steps, total_steps)
    matrices = functools.partial(jax.tree.map, lambda x: x.ndim > 1)
    return schedule, optax.adamw(schedule, b2=0.98, weight_decay=weight_decay, mask=matrices)


@functools.partial(jax.jit, static_argnames=("graph", "optimizer"), donate_argnames=("state",))
def train_step(
    state: TrainState,
    rest: Any,
    batch: Batch,
    *,
    rng_key: jax.Array,
    graph: Any,
    optimizer: optax.GradientTransformation,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The state after one update, which takes the place of the one given, and metrics."""

    def objective(params: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        model = nnx.merge(graph, params, rest)
        out = model(batch, rng_key=rng_key)
        scalars = out.batch_state["loss"]
        return out.mean("loss"), {k: scalars[k] for k in ("temperature",) if k in scalars}

    (loss, watched), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
    updates, moments = optimizer.update(gradients, state.optimizer, state.params)
    metrics = {"loss": loss, **watched}
    return TrainState(optax.apply_updates(state.params, updates), moments), metrics
