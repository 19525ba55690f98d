"""The commands: each checks its arguments, then imports what is slow to import and calls it."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from datarax.cli.convert import convert
from datarax.cli.inspect import inspect
from datarax.cli.run_directory import check_out, check_resumed, check_run, default_out
from datarax.train.config import GLYPHS, SPLITS, TrainConfig, load_config, merged_settings
from datarax.train.settings import parse_assignment, suggestion

app = typer.Typer(
    name="datarax",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    suggest_commands=False,  # `errors` does, and lists them where none is close
    context_settings={"help_option_names": ["-h", "--help"]},
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A directory that `train` made.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"datarax {version('datarax')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def datarax(
    context: typer.Context,
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Debug = False,
) -> None:
    """Train on multi-modal records, and search what was learned.

    Start with: datarax train glyphs --out runs/glyphs; for data of your own: datarax inspect DATA
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _settings_help() -> str:
    """What `--set` takes: a line for each setting."""
    lines = [f"{f.name}: {f.metadata['setting'].help}" for f in dataclasses.fields(TrainConfig)]
    return "Settings, for --set or a TOML file:\n\n" + "\n\n".join(lines)


@app.command(epilog=_settings_help())
def train(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA_OR_TOML",
            help="`glyphs`; shards: files, directories, globs or ranges; or a TOML file.",
        ),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where the run is written.  [default: runs/NAME, of the data]"
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="TOML", help="A file of settings for DATA.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in DIR.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the run in DIR first.")
    ] = False,
    seed: Annotated[str | None, typer.Option(metavar="N", help="The same as --set seed=N.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Threads that read and decode.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Train on a data set or on shards, evaluate, and write a report."""
    assignments = [*(assignments or []), *([] if seed is None else [f"seed={seed}"])]
    overrides = _overrides(assignments)
    source = data[0] if len(data) == 1 else data
    chosen = load_config(source, overrides, file=config)
    place = default_out(data) if out is None else out
    check_out(place, resume=resume, overwrite=overwrite)
    if resume:
        chosen = check_resumed(merged_settings(source, overrides, file=config), place)

    from datarax.cli.table import result_table
    from datarax.train import train as train_run
    from datarax.train.report import write_report

    if out is None:
        typer.echo(f"run: {place}")
    flags = {"resume": resume, "overwrite": overwrite}
    told = None if chosen.data == GLYPHS else typer.echo
    try:
        run = train_run(chosen, place, **flags, threads=threads, told=told)
    except KeyboardInterrupt:
        again = _again(data, place, config)
        typer.echo(f"datarax: interrupted; go on with {again}", err=True)
        raise typer.Exit(130) from None
    path = write_report(run)
    typer.echo(result_table(run.evaluation or {}))
    typer.echo(f"report: {path}")


@app.command()
def evaluate(
    run: Run,
    *,
    split: Annotated[
        str, typer.Option(help="Of which records: train, validation or test.")
    ] = "test",
    debug: Debug = False,
) -> None:
    """Measure retrieval, beside chance and ridge regression."""
    check_run(run)
    chosen = next((name for name in SPLITS if name == split), None)
    if chosen is None:
        raise ValueError(f"unknown split {split!r}: {suggestion(split, SPLITS)}")

    from datarax.cli.table import result_table
    from datarax.train import evaluate as evaluate_run
    from datarax.train import load_run

    typer.echo(result_table(evaluate_run(load_run(run), split=chosen)))


@app.command()
def search(
    run: Run,
    text: Annotated[
        str | None,
        typer.Argument(metavar="[TEXT]", help="A description; of a character, its name."),
    ] = None,
    *,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A picture, instead of TEXT.")
    ] = None,
    top: Annotated[int, typer.Option(metavar="K", min=1, max=100, help="How many to show.")] = 10,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the picture goes.  [default: RUN/search.png]"),
    ] = None,
    debug: Debug = False,
) -> None:
    """Find characters, or the records of shards, by a description or a picture."""
    query = _query(text, image, data=check_run(run).place)

    from datarax.cli.table import hit_table
    from datarax.train import load_run
    from datarax.train.search import draw_hits
    from datarax.train.search import search as search_run

    hits = search_run(load_run(run), **query, top=top)
    typer.echo(hit_table(hits))
    typer.echo(f"picture: {draw_hits(hits, picture or run / 'search.png')}")


@app.command()
def embed(
    run: Run,
    data: Annotated[
        list[str],
        typer.Argument(metavar="DATA", help="Shards: files, directories, globs or ranges."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A directory for Parquet files.")],
    *,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Threads that read and decode.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Write the embeddings of every record of shards, with its key, to Parquet.

    A file for each shard; what is there already is not made again.
    """
    if check_run(run).data == GLYPHS:
        raise ValueError(f"{run} is a run on {GLYPHS}, which has no shards to embed")

    from datarax.train import load_run
    from datarax.train.embed import embed_shards

    typer.echo(embed_shards(load_run(run), data, out, threads=threads))


@app.command()
def report(run: Run, *, debug: Debug = False) -> None:
    """Write RUN/report.html again.

    It is one file that needs nothing else.
    """
    check_run(run)

    from datarax.train import load_run
    from datarax.train.report import write_report

    typer.echo(f"report: {write_report(load_run(run))}")


app.command()(inspect)
app.command()(convert)


def _overrides(assignments: list[str]) -> dict[str, Any]:
    pairs = [parse_assignment(text, TrainConfig) for text in assignments]
    overrides = dict(pairs)
    if len(overrides) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice} is set twice: give it once")
    return overrides


def _query(text: str | None, image: Path | None, *, data: str) -> dict[str, Any]:
    """The arguments of `search`; what cannot be a query is refused before the run is loaded."""
    if (text is None) == (image is None):
        raise ValueError("give either TEXT or --image FILE, and not both")
    if data != GLYPHS:
        return {"text": text, "image": image}
    if image is not None:
        from datarax.train.query_image import read_image

        read_image(image)
        return {"image": image}
    from datarax.train.search import query_name

    query_name(text or "")
    return {"text": text}


def _again(data: list[str], out: Path, config: Path | None) -> str:
    import shlex

    file = [] if config is None else ["--config", str(config)]
    return f"`{shlex.join(['datarax', 'train', *data, *file, '--out', str(out), '--resume'])}`"
