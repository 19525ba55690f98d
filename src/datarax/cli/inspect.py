"""`datarax inspect`: what is in some shards, before anything is trained on them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from datarax.train.settings import read_toml


def inspect(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...", help="Shards: files, directories, globs, ranges {000..012}, URLs."
        ),
    ],
    *,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with a sample of the records.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="TOML", help="Its [fields] and [limits]; else they are inferred."),
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(metavar="JSONL", help="A quarantine.jsonl: look at its records alone."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Look at the first N records.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Threads that read and decode.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Show what is in shards: fields, sizes, equal texts, and what cannot be read."""
    settings = {} if config is None else _tables(config)
    if config is not None and not settings:
        raise ValueError(f"{config} has neither a table [fields] nor [limits]")

    from datarax.inspection import as_text, survey, write_html
    from datarax.sources.open import open_source
    from datarax.train.config import TrainConfig
    from datarax.train.ledger_rows import listed_rows
    from datarax.train.towers import fields_of, limits_of

    chosen = TrainConfig(data=paths[0], **settings)
    source = open_source(paths, fields=fields_of(chosen), limits=limits_of(chosen))
    rows = None if ledger is None else listed_rows(source, ledger)
    found = survey(source, limit=limit, rows=rows, threads=threads)
    typer.echo(as_text(found))
    if html is not None:
        typer.echo(f"\npage: {write_html(found, html)}")


def _tables(config: Path) -> dict[str, Any]:
    settings = read_toml(config)
    return {name: settings[name] for name in ("fields", "limits") if name in settings}
