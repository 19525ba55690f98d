"""What has to be true of a run directory before training starts in it."""

import dataclasses
import re
import shutil
from pathlib import Path

from datarax.train.config import CONFIG_FILE, TrainConfig, dump_config, load_config
from datarax.train.files import write_file

METRICS_FILE = "metrics.jsonl"
TIMINGS_FILE = "timings.jsonl"
EVALUATION_FILE = "evaluation.json"
CHECKPOINTS = "checkpoints"
LEDGER_FILE = "quarantine.jsonl"  # of `pipeline.ledger`, which would import JAX here
BRACKETS = re.compile(r"\[.+\]")
MADE_LATER = (
    METRICS_FILE,
    TIMINGS_FILE,
    EVALUATION_FILE,
    CHECKPOINTS,
    LEDGER_FILE,
    "report.html",
    "search.png",
)


def prepare(path: Path, config: TrainConfig, *, resume: bool, overwrite: bool) -> None:
    """Make a new run directory, or check that the one there may be gone on with.

    Raises:
      FileExistsError: if `path` is not empty and neither flag is set, or is no run to overwrite.
      FileNotFoundError: if there is no run to resume.
      ValueError: if both flags are set, the run was started with another configuration, or the path
        has brackets, behind which Orbax does not find again what it has written.
      OSError: if it cannot be written.
    """
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other")
    if BRACKETS.search(str(path.resolve())):
        raise ValueError(f"{path.resolve()}: checkpoints cannot be kept in a path with [...]")
    if resume:
        _check_resumed(path, config)
        return
    if path.is_dir() and any(path.iterdir()):
        if not overwrite:
            raise FileExistsError(f"{path} is not empty: resume, overwrite or choose another place")
        if not (path / CONFIG_FILE).is_file():
            raise FileExistsError(f"{path} is not a run directory, so it is not overwritten")
        for name in (*MADE_LATER, CONFIG_FILE):
            entry = path / name
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
    path.mkdir(parents=True, exist_ok=True)
    write_file(path / CONFIG_FILE, dump_config(config).encode())


def _check_resumed(path: Path, config: TrainConfig) -> None:
    if not (path / CONFIG_FILE).is_file():
        raise FileNotFoundError(f"{path} holds no run to resume: it has no {CONFIG_FILE}")
    kept = dataclasses.asdict(load_config(path / CONFIG_FILE))
    given = dataclasses.asdict(config)
    differences = [
        f"{name} is {kept[name]!r} there and {given[name]!r} here"
        for name in kept
        if kept[name] != given[name]
    ]
    if differences:
        raise ValueError(f"{path} was started with another configuration: {'; '.join(differences)}")
