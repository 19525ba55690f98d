"""Aligned text for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from datarax.train.results import COLUMNS, result_rows
from datarax.train.search import Hit


def result_table(evaluation: Mapping[str, Any]) -> str:
    """The evaluation as a table: our row of each direction, its baselines under it."""
    records = evaluation["records"]
    head = f"{evaluation['split']} split, {records:,} records, seed {evaluation['seed']}"
    rows: list[tuple[str, ...]] = [(head, *COLUMNS)]
    for row in result_rows(evaluation):
        first = row.direction if row.method == "ours" else f"  {row.method}"
        rows.append((first, *row.cells))
    return _aligned(rows)


def hit_table(hits: Sequence[Hit]) -> str:
    """One line a hit. The character comes last: it may be wide, combining or right-to-left."""
    rows = []
    for hit in hits:
        character = hit.character
        code = "" if character is None else f"U+{ord(character):04X}"
        rows.append(
            (f"{hit.rank}", f"{hit.score:.3f}", code, _printable(hit.name), character or "")
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for rank, score, code, name, character in rows:
        cells = (rank.rjust(widths[0]), score.rjust(widths[1]), code.rjust(widths[2]))
        lines.append("  ".join((*cells, name.ljust(widths[3]), character)).rstrip())
    return "\n".join(lines)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for first, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join((first.ljust(widths[0]), *padded)).rstrip())
    return "\n".join(lines)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
