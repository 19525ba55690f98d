"""Records from files of any format, which their names tell."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from datarax.sources.fields import Fields
from datarax.sources.limits import Limits
from datarax.sources.paths import expand_paths
from datarax.sources.shard import Shard
from datarax.sources.sharded import ShardedSource, fields_of

SUFFIXES = {
    "tar": (".tar", ".tar.gz", ".tgz", ".tar.zst"),
    "parquet": (".parquet",),
    "arrow": (".arrow", ".arrows", ".ipc", ".feather"),
    "arrayrecord": (".arrayrecord", ".array_record"),
    "jsonl": (".jsonl", ".ndjson"),
}
KNOWN = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
_SHOWN = 3


def open_shards(
    paths: str | Path | Iterable[str | Path], *, limits: Limits | None = None
) -> list[Shard]:
    """The shards that paths mean, in order; a folder without shards is one itself.

    Args:
      paths: files, folders, globs, brace ranges, URLs: see `expand_paths`. A folder stands for the
        shards in it, which must be of one format; one with none, there and in folders below it, for
        its files, paired by name (`FolderSource`).
      limits: on what the parts may ask for; `None` is the usual ones.

    Raises:
      ValueError: if no file is found, a suffix is not known, or a folder has several formats, or
        shards only in folders below it: which of them are meant (train, test?) is to be said.
      OSError: if a file cannot be read.
      ImportError: if an extra is not installed that a format, or a URL, needs.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    shards: list[Shard] = []
    for path in given:
        names = _in_folder(os.fspath(path)) if os.path.isdir(path) else expand_paths(path)
        for name in names:
            kind = "folder" if os.path.isdir(name) else format_of(name)
            shards.append(_opener(kind)(name, limits=limits))
    if not shards:
        raise ValueError("no path is given")
    return shards


def open_source(
    paths: str | Path | Iterable[str | Path],
    *,
    fields: Fields | Mapping[str, Any] | None = None,
    limits: Limits | None = None,
) -> ShardedSource:
    """The records of shards of any format.

    Args:
      paths: as of `open_shards`.
      fields: what a record's parts become, or the mapping of it that a TOML file has; `None` infers
        it from 64 records, spread over the shards.
      limits: on what the parts may ask for; `None` leaves those of `fields`, or the usual ones.

    Raises:
      ValueError: as `open_shards`; if there is no record at all, or no field can be inferred.
      OSError: if a file cannot be read.
      ImportError: as `open_shards`.

    Example:
      >>> import pathlib, tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     _ = pathlib.Path(folder, "a.jsonl").write_text('{"n": 1}')
      ...     source = open_source(folder)
      >>> len(source), source[0].data
      (1, {'n': array(1, dtype=int32)})
    """
    made = fields_of(fields)
    for_shards = made.limits if limits is None and made is not None else limits
    return ShardedSource(open_shards(paths, limits=for_shards), fields=made, limits=limits)


def format_of(path: str) -> str:
    """The format that a file's name tells.

    Raises:
      ValueError: if its suffix is not known.

    Example:
      >>> format_of("data/train-000.TAR.GZ")
      'tar'
    """
    for name, suffixes in SUFFIXES.items():
        if path.lower().endswith(suffixes):
            return name
    raise ValueError(f"{path}: the format is not known; known are {', '.join(KNOWN)}, and folders")


def _in_folder(folder: str) -> list[str]:
    """The shards in a folder, which are of one format; the folder itself where it has none.

    A ledger beside them is none.
    """
    with os.scandir(folder) as entries:
        there = any(entry.is_file() and _is_shard(entry.name) for entry in entries)
    if not there:
        _refuse_shards_below(folder)
        return [folder]
    names = [name for name in expand_paths(folder, suffixes=KNOWN) if _is_shard(name)]
    kinds = sorted({format_of(name) for name in names})
    if len(kinds) > 1:
        raise ValueError(f"{folder} has shards of several formats, {kinds}: name those of one")
    return names


def _refuse_shards_below(folder: str) -> None:
    """As records of a folder each would be one record: a whole shard as a part of it."""
    kinds: dict[str, str] = {}  # by folder, the suffix of its first shard
    for place, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        if name := next(filter(_is_shard, sorted(names)), None):
            kinds[place] = next(suffix for suffix in KNOWN if name.lower().endswith(suffix))
    if not kinds:
        return
    places = list(kinds)
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    patterns = [
        os.path.join(folder, "**", f"*{suffix}") for suffix in dict.fromkeys(kinds.values())
    ]
    raise ValueError(
        f"{folder} has its shards in {', '.join(places[:_SHOWN])}{more}: name these folders, or "
        f"all of one format as {' or '.join(map(repr, patterns))} "
        "(FolderSource reads any files as parts of records)"
    )


def _is_shard(path: str) -> bool:
    name = os.path.basename(path)
    is_ledger = name.startswith("quarantine.") and name.endswith(".jsonl")
    return name.lower().endswith(KNOWN) and not name.startswith(".") and not is_ledger


def _opener(kind: str) -> Callable[..., Shard]:
    """The class of a format's shards, imported when it is needed."""
    match kind:
        case "tar":
            from datarax.sources.tar import TarShard

            return TarShard
        case "parquet":
            from datarax.sources.parquet import ParquetShard

            return ParquetShard
        case "arrow":
            from datarax.sources.arrow import ArrowShard

            return ArrowShard
        case "arrayrecord":
            from datarax.sources.array_record import ArrayRecordShard

            return ArrayRecordShard
        case "jsonl":
            from datarax.sources.json_lines import JsonLinesShard

            return JsonLinesShard
    from datarax.sources.folder import FolderShard

    return FolderShard
