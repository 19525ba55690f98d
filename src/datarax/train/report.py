"""`report.html`: what a run learned, in one file that needs nothing else."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jinja2
import numpy as np
from flax import nnx
from jinja2.utils import markupsafe

from datarax.pipeline.ledger import Ledger, read_ledger
from datarax.train.characters import Characters, TrainedRun, characters
from datarax.train.config import GLYPHS
from datarax.train.evaluation import Table, directions
from datarax.train.files import write_file
from datarax.train.report_gallery import Query, gallery, sample_by_script
from datarax.train.report_plots import curves, heat_map, modality_map, script_map
from datarax.train.results import COLUMNS, result_rows
from datarax.train.run_directory import LEDGER_FILE
from datarax.train.towers import columns_of, image_towers, masked_towers, text_towers
from datarax.train.unusable import unusable

_SHOWN = 6
_KINDS: tuple[Literal["hits", "misses"], ...] = ("hits", "misses")
_SCRIPTS, _EACH = 6, 10


def write_report(run: TrainedRun) -> Path:
    """Writes RUN/report.html from the logs, the evaluation and the embeddings of its split.

    Returns:
      The path of the report.

    Raises:
      ValueError: if the run was not evaluated yet, or a log of it is not what `train` writes.
      OSError: if it cannot be written.
    """
    evaluation = _evaluation(run.path)
    found = characters(run, evaluation["split"])
    fields = _shown_fields(run, found.table)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("datarax.train", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html.j2").render(
        config=vars(run.config) | {"data": run.config.place},
        evaluation=evaluation,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(nnx.state(run.model, nnx.Param))),
        columns=COLUMNS,
        rows=result_rows(evaluation),
        curves=curves(_lines(run.path / "metrics.jsonl")),
        timing=_timing(_lines(run.path / "timings.jsonl")),
        fields=fields,
        galleries=_galleries(run, found, fields=fields),
        glyphs=run.config.data == GLYPHS,
        bad=_bad(run.path / LEDGER_FILE),
        **_space(run, found, fields=fields),
    )
    return write_file(run.path / "report.html", html.encode("utf-8", "replace"))


def _shown_fields(run: TrainedRun, table: Table) -> tuple[str, str]:
    """The two towers between which queries are shown: a text and a picture, where there are such.

    Of shards, two that records have together.
    """
    config = run.config
    if config.data == GLYPHS:
        first = "name" if "name" in config.towers else "image"
        second = "image" if first == "name" and "image" in config.towers else "outline"
        return first, second
    texts, images = text_towers(config), image_towers(config)
    pairs = [pair for pair in directions(config.towers) if len(table.rows(*pair)) > 0]
    if not pairs:
        counts = {name: len(table.rows(name)) for name in config.towers}
        raise unusable("to show", config.towers, Ledger(run.path / LEDGER_FILE), counts=counts)
    return max(pairs, key=lambda pair: (pair[0] in texts) + (pair[1] in images))


def _bad(path: Path) -> Mapping[str, int]:
    """How many records of a ledger are bad, by field."""
    faults = read_ledger(path) if path.is_file() else []
    return Counter(fault.field or "(record)" for fault in faults)


def _embedded(run: TrainedRun, table: Table, name: str) -> np.ndarray:
    columns = columns_of([name], masked_towers(run.config))
    if len(columns) == 1:
        return run.embed(name, table.columns[name])
    return run.embed(name, {column: table.columns[column] for column in columns})


def _galleries(
    run: TrainedRun, found: Characters, *, fields: tuple[str, str]
) -> dict[str, list[Query]]:
    """Hits, then misses, from the first field to the second (`there`) and `back`."""
    first, second = fields
    table = found.table
    rows = table.rows(first, second)
    a, b = (_embedded(run, table, name)[rows] for name in fields)
    there, back = (
        [
            query
            for kind in _KINDS
            for query in gallery(similarity, right, found.at(rows), kind=kind, count=_SHOWN)
        ]
        for similarity, right in (
            (a @ b.T, table.relevant(first, second)),
            (b @ a.T, table.relevant(second, first)),
        )
    )
    return {"there": there, "back": back}


def _space(
    run: TrainedRun, found: Characters, *, fields: tuple[str, str]
) -> dict[str, markupsafe.Markup | None]:
    """The plots of the embeddings of all towers, and for characters of similarity by script."""
    embeddings = {
        name: _embedded(run, found.table, name)[found.table.rows(name)]
        for name in run.config.towers
    }
    embeddings = {name: rows for name, rows in embeddings.items() if len(rows)}
    ends = np.cumsum([len(rows) for rows in embeddings.values()])[:-1]
    points = np.split(_plane(np.concatenate(list(embeddings.values()))), ends)
    plots: dict[str, markupsafe.Markup | None] = {
        "modality_map": modality_map(dict(zip(embeddings, points, strict=True))),
        "heat_map": None,
        "script_map": None,
    }
    if found.scripts:
        sample = sample_by_script(found.scripts, groups=_SCRIPTS, each=_EACH)
        a, b = (embeddings[name][sample] for name in fields)
        centred = _plane(np.concatenate([x - x.mean(axis=0) for x in embeddings.values()]))
        groups = [found.scripts[row] for row in sample]
        plots["heat_map"] = heat_map(a @ b.T, groups, fields=fields)
        plots["script_map"] = script_map(centred, found.scripts * len(embeddings))
    return plots


def _plane(points: np.ndarray) -> np.ndarray:
    """The first two principal coordinates, signs fixed: [n, 2]."""
    centred = points - points.mean(axis=0)
    # Of the d x d covariance: n may be thousands, d is the width of the shared space.
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, :-3:-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return centred @ axes


def _evaluation(path: Path) -> dict[str, Any]:
    file = path / "evaluation.json"
    if not file.is_file():
        raise ValueError(f"{path} was not evaluated yet: run `datarax evaluate {path}` first")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: not valid JSON: {error}") from error


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            lines.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not valid JSON: {error}") from error
    return lines


def _timing(lines: list[dict[str, Any]]) -> Mapping[str, float] | None:
    rates = [line["records_per_second"] for line in lines if "records_per_second" in line]
    if not rates:
        return None
    return {"records_per_second": float(np.median(rates)), "seconds": lines[-1]["seconds"]}
