"""Retrieval between the fields of records that the model never saw, beside chance and ridge."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from typing import Any

import jax.numpy as jnp
import numpy as np

from datarax.core.data_source import DataSourceModule
from datarax.functional.alignment.distances import modality_gap
from datarax.pipeline.caps import ErrorCaps
from datarax.pipeline.ledger import Ledger
from datarax.pipeline.pipeline import Pipeline
from datarax.sources.grouping import join_equal
from datarax.train.baseline import Held, Ridge, features
from datarax.train.config import FUSED, GLYPHS, TrainConfig
from datarax.train.retrieval import (
    chance_recalls,
    relevant_targets,
    retrieval_metrics,
)
from datarax.train.towers import columns_of

READ_AT_ONCE = 256
GLYPH_DIRECTIONS = (
    ("image", "name"),
    ("name", "image"),
    ("outline", "name"),
    ("name", "outline"),
    ("image", "outline"),
    ("outline", "image"),
    ("fused", "name"),
    ("name", "fused"),
)


@dataclasses.dataclass(frozen=True)
class Table:
    """Records by field.

    Attributes:
      columns: values, masks, ridge features or embeddings [n, ...].
      groups: content groups [n]: records that are the same in the field.
      presence: bool [n] for each field that some records lack; what lies there means nothing.
      parts: the fields that make up `"fused"`; none where there is no such tower.
      keys: what each record is called.
    """

    columns: Mapping[str, np.ndarray]
    groups: Mapping[str, np.ndarray]
    presence: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    parts: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """The number of records."""
        return len(next(iter(self.groups.values())))

    def rows(self, *fields: str) -> np.ndarray:
        """The records that have all the fields: int [m]."""
        fused = self.parts or (FUSED,)  # a field of that name, where there is no fusion
        named = [part for field in fields for part in (fused if field == FUSED else (field,))]
        there = np.ones(self.size, bool)
        for mask in [self.presence[name] for name in named if name in self.presence]:
            there &= mask
        return np.flatnonzero(there)

    @property
    def towers(self) -> list[str]:
        """The fields, without the fusion."""
        return [name for name in self.groups if not (self.parts and name == FUSED)]

    def relevant(self, query: str, target: str) -> np.ndarray:
        """Which target answers which query: bool [m, m], of the records that have both."""
        rows = self.rows(query, target)
        return relevant_targets(self.groups[query][rows], self.groups[target][rows])

    def replace(self, columns: Mapping[str, np.ndarray]) -> "Table":
        """Other columns of the same records."""
        return dataclasses.replace(self, columns=columns)


def directions(
    fields: Iterable[str], *, parts: tuple[str, ...] = (), data: str = ""
) -> list[tuple[str, str]]:
    """The (query, target) pairs that are evaluated between some fields.

    Args:
      fields: the towers.
      parts: those of the fused one, if there is one; it is compared with the others.
      data: the data set; glyphs have their own order.
    """
    towers = list(fields)
    unordered = list(combinations(towers, 2))
    if parts:
        unordered += [(FUSED, name) for name in towers if name not in parts]
    pairs = [pair for a, b in unordered for pair in ((a, b), (b, a))]
    return sorted(pairs, key=GLYPH_DIRECTIONS.index) if data == GLYPHS else pairs


def directions_of(config: TrainConfig) -> list[tuple[str, str]]:
    """The (query, target) pairs of a run."""
    return directions(config.towers, parts=config.fused_towers, data=config.place)


def raw_table(
    source: DataSourceModule,
    fields: Iterable[str],
    *,
    parts: tuple[str, ...] = (),
    masked: Iterable[str] = (),
    ledger: Ledger | None = None,
) -> Table:
    """The records of a source that can be read, with their content groups.

    Records whose parts of `"fused"` are the same in one of these (glyphs: drawn alike) are one
    group for each part and for both together, so that these are judged by the same standard.

    Args:
      source: where the records are.
      fields: which are wanted.
      parts: of `"fused"`.
      masked: the fields whose masks are wanted too.
      ledger: where bad records go; `None` forgets them.
    """
    fields = tuple(fields)
    names = columns_of(fields, masked)
    columns, presence, keys = _read(source, names, ledger=ledger)
    presence = {name: mask for name, mask in presence.items() if name in fields and not mask.all()}
    groups = {name: join_equal([columns[name]], [presence.get(name)]) for name in fields}
    if parts and set(columns) >= set(parts):
        alike = join_equal([columns[part] for part in parts], [presence.get(p) for p in parts])
        groups |= dict.fromkeys((*parts, FUSED), alike)
        return Table(columns, groups, presence, parts, keys)
    return Table(columns, groups, presence, (), keys)


def _read(
    source: DataSourceModule, names: Iterable[str], *, ledger: Ledger | None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], tuple[str, ...]]:
    """Columns, presence and keys of the records that can be read, in their order."""
    names = tuple(names)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in names}
    presence: dict[str, list[np.ndarray]] = {}
    keys: list[str] = []
    size = min(READ_AT_ONCE, len(source))
    pipeline = Pipeline(
        source,
        batch_size=size,
        seed=0,
        shuffle=False,
        fit_lengths=False,
        host=0,
        hosts=1,
        ledger=ledger,
        error_caps=ErrorCaps(fraction=1, consecutive=None),  # training has caps
    )
    with pipeline:
        for batch in pipeline:
            kept = np.asarray(batch.valid_mask)
            for name in names:
                columns[name].append(np.asarray(batch[name])[kept])
                if name in batch.presence:
                    presence.setdefault(name, []).append(np.asarray(batch.presence[name])[kept])
            about = batch.metadata or [{}] * size
            keys += [str(about[row].get("key", "")) for row in np.flatnonzero(kept).tolist()]
    return (
        {name: np.concatenate(rows) for name, rows in columns.items()},
        {name: np.concatenate(rows) for name, rows in presence.items()},
        tuple(keys),
    )


def embedded(table: Table, embed: Callable[[str, Any], np.ndarray]) -> Table:
    """The unit embeddings of every tower, and of the fused one."""
    values: dict[str, Any] = {name: _inputs(table, (name,)) for name in table.towers}
    if table.parts:
        values[FUSED] = _inputs(table, table.parts)
    return table.replace({name: embed(name, value) for name, value in values.items()})


def _inputs(table: Table, towers: Iterable[str]) -> dict[str, np.ndarray]:
    wanted = [c for name in towers for c in (name, f"{name}_mask")]
    return {name: table.columns[name] for name in wanted if name in table.columns}


def retrieval_rows(table: Table, pairs: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """A row of metrics for each (query, target), from embeddings.

    Each is of the records that have both; a pair that no record has gives no row.
    """
    rows = []
    for query, target in pairs:
        both = table.rows(query, target)
        if len(both) == 0:
            continue
        scores = table.columns[query][both] @ table.columns[target][both].T
        metrics = retrieval_metrics(scores, table.relevant(query, target))
        rows.append({"query": query, "target": target, "records": len(scores), **metrics})
    return rows


def chance_rows(table: Table, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The recalls of a random order beside rows of `retrieval_rows`."""
    return [
        {
            f"chance_{name}": value
            for name, value in chance_recalls(table.relevant(row["query"], row["target"])).items()
        }
        for row in rows
    ]


def ridge_rows(
    pairs: Iterable[tuple[str, str]], *, train: Table, validation: Table, test: Table
) -> list[dict[str, float]]:
    """Recalls of ridge and tuned ridge for each (query, target), from raw values."""
    pairs = list(pairs)
    rows: list[dict[str, float]] = [{} for _ in pairs]
    for prefix, plain in (("ridge", True), ("tuned_ridge", False)):
        parts = [_featured(table, plain=plain) for table in (train, validation, test)]
        for row, recalls in zip(rows, _ridge_recalls(pairs, parts, plain=plain), strict=True):
            row |= {f"{prefix}_{name}": value for name, value in recalls.items()}
    return rows


def _ridge_recalls(
    pairs: list[tuple[str, str]], parts: list[Table], *, plain: bool
) -> list[dict[str, float]]:
    train, *others = parts
    fitted = {query: Ridge.fit(train.columns[query]) for query in dict(pairs)}
    found = []
    for query, target in pairs:
        validation, test = (
            Held(part.columns[query], part.columns[target], part.relevant(query, target))
            for part in others
        )
        ridge, y = fitted[query], train.columns[target]
        if plain:
            found.append(ridge.plain_recalls(y, test=test))
        else:
            found.append(ridge.recalls(y, validation=validation, test=test))
    return found


def modality_gaps(table: Table, fields: Iterable[str]) -> dict[str, float]:
    """The distance of the centroids of each two fields' embeddings, by "image-name"."""
    gaps = {}
    for a, b in combinations(sorted(fields), 2):
        rows = table.rows(a, b)
        if len(rows):
            x, y = (jnp.asarray(table.columns[name][rows]) for name in (a, b))
            gaps[f"{a}-{b}"] = float(modality_gap(x, y))
    return gaps


def _featured(table: Table, *, plain: bool) -> Table:
    columns = {name: features(name, table.columns[name], plain=plain) for name in table.towers}
    if table.parts:
        columns[FUSED] = np.concatenate([columns[part] for part in table.parts], axis=1)
    return table.replace(columns)
