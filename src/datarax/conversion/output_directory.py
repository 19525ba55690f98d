"""The directory that a conversion fills, and whose conversion it holds."""

import fnmatch
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datarax.pipeline.ledger import LEDGER_FILE
from datarax.sources.cache import write_atomically
from datarax.sources.paths import INDEX_SUFFIX, expand_braces

STATE_FILE = "conversion.json"
COLUMNS_FILE = "columns.schema"  # of tables

_SHARD = re.compile(r"data-\d{6}\.(tar|parquet|arrow|arrayrecord)")
_LEFTOVER = re.compile(r"\.(data-\d{6}\.\w+|conversion\.json|columns\.schema)\..*\.part")


def shard_path(out: Path, number: int, *, suffix: str) -> Path:
    """Where shard `number` goes.

    Example:
      >>> shard_path(Path("out"), 7, suffix="tar").name
      'data-000007.tar'
    """
    return out / f"data-{number:06}.{suffix}"


def check_place(first: Path, *, given: Sequence[str | Path], files: Sequence[str]) -> None:
    """Refuse to write where shards are read, or where the next call would read what this one wrote.

    Args:
      first: the first shard to be written.
      given: the paths, directories and patterns to read.
      files: that they mean.

    Raises:
      ValueError: if the directory of `first` is, or lies in, one that is read, or a pattern would
        find `first`.
      NotADirectoryError: if it is a file.
    """
    place = first.parent.resolve()
    folders = [Path(path).resolve() for path in given if Path(path).is_dir()]
    taken = any(place.is_relative_to(folder) for folder in folders)
    taken |= any(Path(name).resolve().parent == place for name in files)
    if taken or any(_finds(str(path), first) for path in given):
        raise ValueError(
            f"{first.parent} is where the shards of {', '.join(map(str, given))} lie: "
            f"choose another place"
        )
    if first.parent.exists() and not first.parent.is_dir():
        raise NotADirectoryError(f"{first.parent} is not a directory")


def _finds(path: str, file: Path) -> bool:
    """Whether a glob finds a file; one with `**`, whether it looks in a directory above it."""
    for pattern in expand_braces(path):
        steps = Path(os.path.abspath(pattern)).parts
        for there in (os.path.abspath(file), os.path.realpath(file)):
            names = Path(there).parts
            if "**" in steps:
                names, steps = names[: steps.index("**")], steps[: steps.index("**")]
            if len(names) == len(steps) and all(map(fnmatch.fnmatchcase, names, steps)):
                return True
    return False


def prepare(out: Path, state: dict[str, Any], *, overwrite: bool) -> None:
    """Make `out` ready for the conversion that `state` describes, or go on with it.

    What a killed call left half-written is removed.

    Args:
      out: the directory; made if it does not exist.
      state: what the shards depend on, as JSON has it.
      overwrite: whether the conversion that is there is deleted.

    Raises:
      ValueError: if `out` holds the conversion of other records or with other options, saying what
        differs, or is not empty and holds none.
      OSError: if it cannot be read or written.
    """
    path = out / STATE_FILE
    names = sorted(os.listdir(out)) if out.is_dir() else []
    foreign = [name for name in names if not _is_ours(name)]
    if foreign or (STATE_FILE not in names and any(map(_SHARD.fullmatch, names))):
        raise ValueError(
            f"{out} holds what no conversion wrote ({', '.join((foreign or names)[:3])}): "
            f"choose another place"
        )
    for name in filter(_LEFTOVER.fullmatch, names):
        (out / name).unlink()
    if STATE_FILE in names and overwrite:
        _remove(out, names)
    elif STATE_FILE in names:
        _check_same(out, _load(path), state)
        return
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(state, indent=1) + "\n"
    write_atomically(path, lambda file: _put(file, text))


def _put(file: Any, text: str) -> None:
    file.write(text.encode())


def _is_ours(name: str) -> bool:
    known = name in (STATE_FILE, COLUMNS_FILE, LEDGER_FILE) or _LEFTOVER.fullmatch(name)
    return bool(known or _SHARD.fullmatch(name.removesuffix(INDEX_SUFFIX)))


def _remove(out: Path, names: list[str]) -> None:
    """What tells that this is a conversion goes last: a kill between leaves one to overwrite."""
    for name in sorted(names, key=lambda name: name == STATE_FILE):
        (out / name).unlink(missing_ok=True)


def _load(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not of a conversion ({error}): --overwrite it") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} is not of a conversion: --overwrite it")
    return state


def _check_same(out: Path, kept: dict[str, Any], state: dict[str, Any]) -> None:
    differences = []
    for name in sorted({*kept, *state} - {"shards"}):
        if kept.get(name) != state.get(name):
            differences.append(f"{name} {kept.get(name)!r} there, {state.get(name)!r} now")
    before, now = kept.get("shards", []), state["shards"]
    if len(before) != len(now):
        differences.append(f"{len(before)} source shards there, {len(now)} now")
    changed = [pair for pair in zip(before, now, strict=False) if pair[0] != pair[1]]
    differences += [f"source shard {old} there, {new} now" for old, new in changed[:5]]
    if len(changed) > 5:
        differences.append(f"and {len(changed) - 5} more source shards")
    if differences:
        raise ValueError(
            f"{out} holds another conversion: {'; '.join(differences)}. "
            f"Give --overwrite, or choose another place"
        )
