"""`datarax convert`: shards of one format from shards of another."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from datarax.train.config import SHARD_SUFFIXES
from datarax.train.settings import read_toml

_FORMATS = {".tar": "tar", ".parquet": "parquet", ".arrow": "arrow", ".arrayrecord": "arrayrecord"}


def convert(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC...", help="Shards: files, directories, globs, ranges {000..012}, URLs."
        ),
    ],
    out: Annotated[str, typer.Argument(metavar="DST", help="A directory for the new shards.")],
    *,
    format: Annotated[
        str, typer.Option(metavar="FORMAT", help="tar, parquet, arrow or arrayrecord.")
    ] = "tar",
    shard_records: Annotated[
        int, typer.Option(metavar="N", min=1, help="Records of a shard, at most.")
    ] = 1000,
    config: Annotated[
        Path | None, typer.Option(metavar="TOML", help="Its [limits]; else the usual ones.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the conversion in DST first.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Copy the records of shards, in their order, to shards of another format.

    Interrupted, it goes on when called again; what is there already is not made again. Records that
    cannot be read are left out and listed in DST/quarantine.jsonl.
    """
    _check_directory(out, format=format, given=source)

    from datarax.conversion import convert_shards

    done = convert_shards(
        source,
        out,
        format=format,
        shard_records=shard_records,
        overwrite=overwrite,
        limits=None if config is None else _limits(config, data=source[0]),
    )
    typer.echo(done)


def _limits(config: Path, *, data: str) -> Any:
    from datarax.train.config import TrainConfig
    from datarax.train.towers import limits_of

    settings = read_toml(config)
    if "limits" not in settings:
        raise ValueError(f"{config} has no table [limits]")
    return limits_of(TrainConfig(data=data, limits=settings["limits"]))


def _check_directory(out: str, *, format: str, given: list[str]) -> None:
    """Refuse what would be a directory that is called like a shard."""
    suffix = next((x for x in SHARD_SUFFIXES if out.lower().endswith(x)), None)
    if suffix is None or "://" in out or Path(out).is_dir():
        return
    made = _FORMATS.get(suffix, format)
    folder = out[: -len(suffix)]
    line = shlex.join(["datarax", "convert", *given, folder, "--format", made])
    raise ValueError(
        f"{out}: DST is a directory, and this is called like a file; `{line}` makes "
        f"{folder}/data-000000.{made} and so on"
    )
