"""A run on disk: its files, its trained model, its evaluation."""

import dataclasses
import functools
import json
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from datarax.core.data_source import DataSourceModule
from datarax.pipeline.ledger import Ledger
from datarax.sources.glyphs import Split
from datarax.train.checkpoints import Checkpoints
from datarax.train.config import CONFIG_FILE, GLYPHS, TrainConfig, load_config
from datarax.train.data import open_split
from datarax.train.evaluation import (
    Table,
    chance_rows,
    directions_of,
    embedded,
    modality_gaps,
    raw_table,
    retrieval_rows,
    ridge_rows,
)
from datarax.train.files import write_file
from datarax.train.model import Retriever, build
from datarax.train.run_directory import CHECKPOINTS, EVALUATION_FILE, LEDGER_FILE
from datarax.train.towers import given, masked_towers

EMBED_ROWS = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A trained run.

    Attributes:
      path: its directory.
      config: what it was trained with.
      model: the module, with the parameters that were best on validation.
      step: the step that they are of.
      evaluation: what `evaluate` gave after training; `None` if training did not get there.
    """

    path: Path
    config: TrainConfig
    model: Retriever
    step: int
    evaluation: dict[str, Any] | None = None

    def embed(self, field: str, arrays: Any) -> np.ndarray:
        """Unit vectors float32 [n, embedding_size] of a field's values, as the data set has them.

        Args:
          field: a tower, or `"fused"`.
          arrays: an array; or a dict by field, of arrays and masks. `"fused"` takes a dict of its
            parts (of `image` and `outline`, for glyphs).

        Raises:
          KeyError: if the model has no tower for the field.
        """
        return embed_rows(self.model, field, jax.tree.map(np.asarray, arrays))

    def source(self, split: Split) -> DataSourceModule:
        """The records of a split, or of `"all"`."""
        return open_split(self.config, split)

    def table(self, split: Split) -> Table:
        """The records of a split that can be read, by field."""
        return split_table(self.config, split, ledger=Ledger(self.path / LEDGER_FILE))


def split_table(config: TrainConfig, split: Split, *, ledger: Ledger | None = None) -> Table:
    """The records of a split of a configuration's data that can be read, by tower."""
    return raw_table(
        open_split(config, split),
        config.towers,
        parts=config.fused_towers,
        masked=masked_towers(config),
        ledger=ledger,
    )


def embed_rows(model: Retriever, field: str, values: Any) -> np.ndarray:
    """The embeddings of any number of rows, computed 256 at a time: float32 [n, d]."""
    graph, state = nnx.split(model)
    values = given(values, field)
    size = len(jax.tree.leaves(values)[0])

    def block(column: np.ndarray) -> np.ndarray:
        rows = column[start : start + EMBED_ROWS]
        spare = np.zeros((EMBED_ROWS - len(rows), *rows.shape[1:]), rows.dtype)
        return np.concatenate([rows, spare])

    parts = []
    for start in range(0, max(size, 1), EMBED_ROWS):
        embeddings = _embed(state, jax.tree.map(block, values), graph=graph, field=field)
        parts.append(np.asarray(embeddings)[: size - start])
    return np.concatenate(parts)


@functools.partial(jax.jit, static_argnames=("graph", "field"))
def _embed(state: nnx.State, values: Any, *, graph: Any, field: str) -> jax.Array:
    return nnx.merge(graph, state).embed(field, values)


def load_run(path: str | Path) -> Run:
    """The run at `path`, with the model that was best on validation.

    Raises:
      FileNotFoundError: if there is nothing at `path`, or the run has no checkpoint yet.
      ValueError: if `path` is not a run directory.
    """
    path = Path(path)
    if not (path / CONFIG_FILE).is_file():
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: train a run there first")
        raise ValueError(f"{path} is not a run directory: it has no {CONFIG_FILE}")
    config = load_config(path / CONFIG_FILE)
    with Checkpoints(path / CHECKPOINTS, create=False) as checkpoints:
        graph, params, rest = _without_params(config)
        restored = checkpoints.restore("best", params=params)
    return Run(
        path=path,
        config=config,
        model=nnx.merge(graph, restored["params"], rest),
        step=restored["progress"]["step"],
        evaluation=_read_evaluation(path / EVALUATION_FILE),
    )


def _without_params(config: TrainConfig) -> tuple[Any, dict[str, Any], Any]:
    """`split_params` of the untrained model, with specs for parameters: a checkpoint has those.

    Drawing the parameters would take most of the time of a search.
    """
    graph, params, _ = split_params(nnx.eval_shape(lambda: build(config)))
    rest = jax.jit(lambda: split_params(build(config))[2])()
    return graph, params, rest


def split_params(model: Retriever) -> tuple[Any, dict[str, Any], Any]:
    """A model as its graph, its parameters in a plain dict, and all other state."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    return graph, nnx.to_pure_dict(params), rest


def _read_evaluation(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON: {error}; evaluate the run again") from error


def evaluate(run: Run, split: Split = "test") -> dict[str, Any]:
    """How well a run retrieves between the fields of a split, beside chance; glyphs: beside ridge.

    Every direction ranks all records of the split that have both fields. Equal scores count as
    their expectation over random order; records that are equal in the query or in the target share
    credit. The plain and the tuned ridge (`train.baseline`) are fitted on the training split.

    Returns:
      `split`, `records`, `seed`, `step`, `fused` (its parts, if there is such a tower),
      `retrieval` (one dict a direction), `modality_gap`, `temperature` (unless the loss has none):
      plain values for JSON.
    """
    pairs = directions_of(run.config)
    raw = run.table(split)
    table = embedded(raw, run.embed)
    ours = retrieval_rows(table, pairs)
    others = [chance_rows(table, ours)]
    if run.config.data == GLYPHS:
        train, validation = run.table("train"), run.table("validation")
        others.append(ridge_rows(pairs, train=train, validation=validation, test=raw))
    temperature = run.model.temperature
    return {
        "split": split,
        "records": raw.size,
        "seed": run.config.seed,
        "step": run.step,
        **({"fused": list(raw.parts)} if raw.parts else {}),
        "retrieval": [
            functools.reduce(operator.or_, rows) for rows in zip(ours, *others, strict=True)
        ],
        "modality_gap": modality_gaps(table, run.config.towers),
        **({} if temperature is None else {"temperature": temperature}),
    }


def write_evaluation(path: Path, evaluation: Mapping[str, Any]) -> None:
    """Write `evaluation.json`, whole or not at all."""
    write_file(path / EVALUATION_FILE, (json.dumps(evaluation, indent=2) + "\n").encode())
