"""`report.html`: what a run learned, in one file that needs nothing else."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from datarax.train.characters import Characters, TrainedRun, characters
from datarax.train.files import write_file
from datarax.train.report_gallery import gallery, sample_by_script
from datarax.train.report_plots import curves, heat_map, modality_map, script_map
from datarax.train.results import COLUMNS, result_rows

_SHOWN = 6
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
    embeddings = {
        "name": run.embed("name", found.fields["name"]),
        "image": run.embed("image", found.images),
    }
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
        columns=COLUMNS,
        rows=result_rows(evaluation),
        curves=curves(_lines(run.path / "metrics.jsonl")),
        timing=_timing(_lines(run.path / "timings.jsonl")),
        **_seen(embeddings["name"], embeddings["image"], found=found),
    )
    return write_file(run.path / "report.html", html.encode("utf-8", "replace"))


def _seen(names: np.ndarray, images: np.ndarray, *, found: Characters) -> dict[str, Any]:
    """The parts of the page that are made from embeddings [n, d]."""
    similarity = names @ images.T
    sample = sample_by_script(found.scripts, groups=_SCRIPTS, each=_EACH)
    together = _plane(np.concatenate([names, images]))
    centred = _plane(np.concatenate([names - names.mean(0), images - images.mean(0)]))
    count = len(names)
    return {
        "heat_map": heat_map(
            similarity[np.ix_(sample, sample)], [found.scripts[row] for row in sample]
        ),
        "galleries": {
            "to_image": {
                kind: gallery(similarity, found, kind=kind, count=_SHOWN)
                for kind in ("hits", "misses")
            },
            "to_name": {
                kind: gallery(similarity.T, found, kind=kind, count=_SHOWN)
                for kind in ("hits", "misses")
            },
        },
        "modality_map": modality_map({"name": together[:count], "image": together[count:]}),
        "script_map": script_map(centred, found.scripts * 2),
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
