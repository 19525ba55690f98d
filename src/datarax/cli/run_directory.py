"""What `--out` and RUN may be. Nothing is created or deleted here."""

import errno
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datarax.train.config import CONFIG_FILE, SHARD_SUFFIXES, TrainConfig, load_config
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


def default_out(places: Sequence[str]) -> Path:
    """Where a run on some data goes if that is not said: `runs/`, and what the data are called.

    Several are called like the folder that they are in.

    Example:
      >>> [str(default_out([x])) for x in ("glyphs", "big/cats.tar", "s3://x/cats-{000..012}.tar")]
      ['runs/glyphs', 'runs/cats', 'runs/cats']
    """
    first = places[0]
    if len(places) > 1 and len({os.path.dirname(place) for place in places}) == 1:
        first = os.path.dirname(first)
    whole = first if "://" in first else os.path.abspath(first)
    for part in reversed(whole.split("/")):
        suffix = next((x for x in (".toml", *SHARD_SUFFIXES) if part.lower().endswith(x)), "")
        name = re.split(r"[*?{\[]", part.removesuffix(part[len(part) - len(suffix) :]))[0]
        if name := re.sub(r"[^\w.-]+", "-", name).strip("-_."):
            return Path("runs", name)
    return Path("runs", "data")


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
