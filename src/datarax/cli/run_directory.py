"""What `--out` and RUN may be. Nothing is created or deleted here."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datarax.train.config import CONFIG_FILE, TrainConfig, load_config
from datarax.train.run_directory import MADE_LATER


def check_run(path: Path) -> TrainConfig:
    """The configuration of the run at `path`.

    Raises:
      ValueError: if there is no run.
      FileNotFoundError: if there is nothing at all.
    """
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if not (path / CONFIG_FILE).is_file():
        raise ValueError(
            f"{path} is not a run directory: it has no {CONFIG_FILE}; "
            f"`datarax train glyphs --out DIR` makes one"
        )
    return load_config(path / CONFIG_FILE)


def check_out(path: Path, *, resume: bool, overwrite: bool) -> None:
    """Raises if a run must not start at `path`.

    Raises:
      ValueError: if both flags are set, if `path` is in use and neither is, if there is nothing to
        resume, or if overwriting would delete what is not part of a run.
      OSError: if `path` is a file, or cannot be made or written.
    """
    if resume and overwrite:
        raise ValueError("give --resume or --overwrite, not both")
    if resume:
        check_run(path)
    elif path.is_dir() and os.listdir(path):
        if not overwrite:
            raise ValueError(f"{path} is not empty: give --resume, --overwrite or another --out")
        check_run(path)
        foreign = sorted(set(os.listdir(path)) - {CONFIG_FILE, *MADE_LATER})
        if foreign:
            raise ValueError(
                f"{path} holds what no run writes ({', '.join(foreign[:3])}), so it is not "
                f"overwritten: move it away or give another --out"
            )
    _check_writable(path)


def check_resumed(settings: dict[str, Any], path: Path) -> TrainConfig:
    """The configuration of the run at `path`, with which the given settings must agree.

    Fields agree if they are the same once what they leave out is filled in, as it is in the run.

    Raises:
      ValueError: naming the first setting that differs.
    """
    config = check_run(path)
    kept = vars(config)
    for key, value in settings.items():
        if kept[key] != value and not (key == "fields" and _same_fields(kept[key], value)):
            raise ValueError(
                f"{key}: the run at {path} has {kept[key]!r}, not {value!r}; leave it out to "
                f"resume, or give another --out"
            )
    return config


def _same_fields(kept: Mapping[str, Any] | None, given: Mapping[str, Any]) -> bool:
    from datarax.sources.fields import Fields  # imports JAX

    return kept is not None and Fields.from_mapping(kept) == Fields.from_mapping(given)


def _check_writable(path: Path) -> None:
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
