"""The rows of the results table, for the terminal and the report."""

import dataclasses
from collections.abc import Mapping
from typing import Any

COLUMNS = ("R@1", "R@5", "R@10", "median rank", "MRR")
_KEYS = ("recall_at_1", "recall_at_5", "recall_at_10", "median_rank", "mrr")
_METHODS = {
    "": "ours",
    "tuned_ridge_": "tuned ridge",
    "ridge_": "ridge regression",
    "chance_": "chance",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One method on one direction; `cells` follow `COLUMNS`, "" where nothing was measured."""

    direction: str
    method: str
    cells: tuple[str, ...]


def result_rows(evaluation: Mapping[str, Any]) -> list[ResultRow]:
    """Our row of each direction, followed by those of its baselines."""
    rows = []
    for result in evaluation["retrieval"]:
        parts = {"fused": evaluation.get("fused", ())}
        ends = ("+".join(parts.get(result[end]) or (result[end],)) for end in ("query", "target"))
        direction = " → ".join(ends)
        for prefix, method in _METHODS.items():
            cells = tuple(_cell(key, result.get(prefix + key)) for key in _KEYS)
            if any(cells):
                rows.append(ResultRow(direction=direction, method=method, cells=cells))
    return rows


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:g}" if key == "median_rank" else f"{value:.3f}"
