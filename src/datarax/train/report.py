"""`report.html`: what a run learned, in one file that needs nothing else."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jinja2
import numpy as np
from flax import nnx
from jinja2.utils import markupsafe

from datarax.train.characters import Characters, TrainedRun, characters
from datarax.train.files import write_file
from datarax.train.report_gallery import Query, gallery, sample_by_script
from datarax.train.report_plots import curves, heat_map, modality_map, script_map
from datarax.train.results import COLUMNS, result_rows

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
    towers = run.config.towers
    first = "name" if "name" in towers else "image"
    second = "image" if first == "name" and "image" in towers else "outline"
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("datarax.train", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html.j2").render(
        config=vars(run.config),
        evaluation=evaluation,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(nnx.state(run.model, nnx.Param))),
        columns=COLUMNS,
        rows=result_rows(evaluation),
        curves=curves(_lines(run.path / "metrics.jsonl")),
        timing=_timing(_lines(run.path / "timings.jsonl")),
        fields=(first, second),
        galleries=_galleries(run, found, fields=(first, second)),
        **_space(run, found, fields=(first, second)),
    )
    return write_file(run.path / "report.html", html.encode("utf-8", "replace"))


def _galleries(
    run: TrainedRun, found: Characters, *, fields: tuple[str, str]
) -> dict[str, list[Query]]:
    """Hits, then misses, from the first field to the second (`there`) and `back`."""
    first, second = fields
    a, b = (run.embed(name, found.table.columns[name]) for name in fields)
    there, back = (
        [
            query
            for kind in _KINDS
            for query in gallery(similarity, right, found, kind=kind, count=_SHOWN)
        ]
        for similarity, right in (
            (a @ b.T, found.table.relevant(first, second)),
            (b @ a.T, found.table.relevant(second, first)),
        )
    )
    return {"there": there, "back": back}


def _space(
    run: TrainedRun, found: Characters, *, fields: tuple[str, str]
) -> dict[str, markupsafe.Markup]:
    """The plots of similarity and of the embeddings of all towers."""
    columns = found.table.columns
    embeddings = {name: run.embed(name, columns[name]) for name in run.config.towers}
    sample = sample_by_script(found.scripts, groups=_SCRIPTS, each=_EACH)
    a, b = (embeddings[name][sample] for name in fields)
    together = _plane(np.concatenate(list(embeddings.values())))
    centred = _plane(np.concatenate([rows - rows.mean(axis=0) for rows in embeddings.values()]))
    points = np.split(together, len(embeddings))
    return {
        "heat_map": heat_map(a @ b.T, [found.scripts[row] for row in sample], fields=fields),
        "modality_map": modality_map(dict(zip(embeddings, points, strict=True))),
        "script_map": script_map(centred, found.scripts * len(embeddings)),
    }


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
