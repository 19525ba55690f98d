"""Retrieval between the fields of records that the model never saw, beside chance and ridge."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from typing import Any

import jax.numpy as jnp
import numpy as np

from datarax.functional.alignment.distances import modality_gap
from datarax.sources.grouping import join_equal
from datarax.train.baseline import Held, Ridge, features
from datarax.train.model import FUSED, FUSED_FIELDS
from datarax.train.retrieval import (
    chance_recalls,
    relevant_targets,
    retrieval_metrics,
)

PARTS = {FUSED: FUSED_FIELDS}
DIRECTIONS = (
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
    """Records by field: values, ridge features or embeddings [n, ...], and content groups [n]."""

    columns: Mapping[str, np.ndarray]
    groups: Mapping[str, np.ndarray]

    def relevant(self, query: str, target: str) -> np.ndarray:
        """Which target answers which query: bool [n, n]."""
        return relevant_targets(self.groups[query], self.groups[target])

    def replace(self, columns: Mapping[str, np.ndarray]) -> "Table":
        """Other columns of the same records."""
        return Table(columns, self.groups)


def directions(fields: Iterable[str]) -> list[tuple[str, str]]:
    """The (query, target) pairs that can be evaluated between some fields."""
    there = set(fields)
    there |= {name for name, parts in PARTS.items() if there >= set(parts)}
    return [pair for pair in DIRECTIONS if there >= set(pair)]


def raw_table(source: Any, fields: Iterable[str]) -> Table:
    """The records of a columnar source that have all the fields, with their content groups.

    Records whose picture or outline is the same are drawn alike: one group for the picture, the
    outline and both together, so that these are judged by the same standard.
    """
    batch = source.take(np.arange(len(source)))
    fields = tuple(fields)
    rows = batch.where(*fields)
    rows = np.ones(len(source), bool) if rows is None else np.asarray(rows)
    columns = {name: np.asarray(batch[name])[rows] for name in fields}
    groups = {name: join_equal([column], [None]) for name, column in columns.items()}
    for name, parts in PARTS.items():
        if set(columns) >= set(parts):
            alike = join_equal([columns[part] for part in parts], [None] * len(parts))
            groups |= dict.fromkeys((*parts, name), alike)
    return Table(columns, groups)


def embedded(table: Table, embed: Callable[[str, Any], np.ndarray]) -> Table:
    """The unit embeddings of every field, and of the fused ones."""
    columns = {name: embed(name, column) for name, column in table.columns.items()}
    for name, parts in PARTS.items():
        if set(columns) >= set(parts):
            columns[name] = embed(name, {part: table.columns[part] for part in parts})
    return table.replace(columns)


def retrieval_rows(table: Table, pairs: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """A row of metrics for each (query, target), from embeddings."""
    rows = []
    for query, target in pairs:
        scores = table.columns[query] @ table.columns[target].T
        metrics = retrieval_metrics(scores, table.relevant(query, target))
        rows.append({"query": query, "target": target, "records": len(scores), **metrics})
    return rows


def baseline_rows(
    pairs: Iterable[tuple[str, str]], *, train: Table, validation: Table, test: Table
) -> list[dict[str, float]]:
    """Recalls of chance, ridge and tuned ridge for each (query, target), from raw values."""
    pairs = list(pairs)
    rows: list[dict[str, float]] = []
    for query, target in pairs:
        chance = chance_recalls(test.relevant(query, target))
        rows.append({f"chance_{name}": value for name, value in chance.items()})
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
    names = sorted(fields)
    columns = {name: jnp.asarray(table.columns[name]) for name in names}
    return {
        f"{a}-{b}": float(modality_gap(columns[a], columns[b])) for a, b in combinations(names, 2)
    }


def _featured(table: Table, *, plain: bool) -> Table:
    columns = {name: features(name, x, plain=plain) for name, x in table.columns.items()}
    for name, parts in PARTS.items():
        if set(columns) >= set(parts):
            columns[name] = np.concatenate([columns[part] for part in parts], axis=1)
    return table.replace(columns)
