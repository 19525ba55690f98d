"""Records copied from shards of any format to shards of one, resumably."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datarax.conversion.distinct_keys import distinct_keys
from datarax.conversion.output_directory import COLUMNS_FILE, check_place, prepare, shard_path
from datarax.conversion.write_array_record import require_array_record, write_array_record
from datarax.conversion.write_tables import (
    Columns,
    load_schema,
    save_schema,
    write_arrow,
    write_parquet,
)
from datarax.conversion.write_tar import write_tar
from datarax.pipeline.ledger import LEDGER_FILE, Ledger
from datarax.sources.limits import Limits
from datarax.sources.open import open_shards
from datarax.sources.paths import is_url
from datarax.sources.record import RawRecord, RecordError
from datarax.sources.shard import Shards

FORMATS = ("tar", "parquet", "arrow", "arrayrecord")
MOST_SHARDS = 10**6

Write = Callable[[Path, Iterable[RawRecord]], None]


def convert_shards(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    format: str = "tar",
    shard_records: int = 1000,
    overwrite: bool = False,
    limits: Limits | None = None,
) -> str:
    """Write the records of `source`, in their order, to `out/data-000000.<format>` and so on.

    Shard `k` is of records `k * shard_records` to `(k + 1) * shard_records` of all that the source
    has. Those that cannot be read are left out, so it may hold fewer; they, and what else of the
    source is lost, are lines of `out/quarantine.jsonl`. Keys, and parts that are bytes, text or
    numbers, stay as they are; see `write_tar`, `Columns` and `write_array_record` for what a format
    makes of others. Only in a tar no two records have one key: see `distinct_keys` for shards that
    each count from 0. Tables have the same columns in every shard, for which all records are read
    once before; `out/columns.schema` keeps them.

    A shard appears whole or not at all, and one that is there is not made again: killed at any time
    and called again, the files are byte for byte those of an undisturbed call.

    Args:
      source: shards: files, directories, globs, ranges or URLs.
      out: the directory; made if it does not exist, and not where `source` would find its shards.
      format: of `FORMATS`.
      shard_records: of a shard, at most.
      overwrite: delete the conversion in `out` first.
      limits: on what the parts may ask for, beyond which they are not read; `None` is the usual.

    Returns:
      What was done, in one line.

    Raises:
      ValueError: if `source` has no records, an argument is not as above, `out` holds another
        conversion or anything else, or a record cannot be in the format (naming it).
      ImportError: for tables without `datarax[parquet]`, ArrayRecord without
        `datarax[arrayrecord]`.
      OSError: if a file cannot be read or written.
    """
    _check_options(out, format=format, shard_records=shard_records)
    out = Path(out)
    shards = Shards(open_shards(source, limits=limits))
    given = [source] if isinstance(source, str | Path) else source
    names = [shard.name for shard in shards.shards]
    check_place(shard_path(out, 0, suffix=format), given=given, files=names)
    if len(shards) == 0:
        lost = "".join(f"\n  {fault}" for fault in shards.faults)
        raise ValueError(f"there are no records in {', '.join(names)}{lost}")
    number = -(-len(shards) // shard_records)
    if number > MOST_SHARDS:
        raise ValueError(f"{number} shards of {shard_records} records: at most {MOST_SHARDS}")
    listed = [[shard.name, len(shard), shard.identity()] for shard in shards.shards]
    state = {"format": format, "shard_records": shard_records, "shards": listed}
    if unusual := _unusual(limits):
        state["limits"] = unusual
    prepare(out, state, overwrite=overwrite)
    ledger = Ledger(out / LEDGER_FILE)
    ledger.add(shards.faults)
    paths = [shard_path(out, place, suffix=format) for place in range(number)]
    lacking = [place for place, path in enumerate(paths) if not path.exists()]
    changed: collections.Counter[str] = collections.Counter()
    if lacking:
        spans = {
            paths[place]: range(
                place * shard_records, min((place + 1) * shard_records, len(shards))
            )
            for place in lacking
        }
        _write_shards(shards, spans, ledger=ledger, changed=changed)
    done = _summary(shards, out, made=len(lacking), number=number, ledger=ledger)
    return done + _told(changed)


def _check_options(out: str | Path, *, format: str, shard_records: int) -> None:
    """What can be refused before anything is read."""
    if is_url(out):
        raise ValueError(f"{out} is a URL: shards are written to a local directory, copy them then")
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}: choose one of {', '.join(FORMATS)}")
    if shard_records < 1:
        raise ValueError(f"shard_records must be at least 1, got {shard_records}")
    if format == "arrayrecord":
        require_array_record()


def _unusual(limits: Limits | None) -> dict[str, Any]:
    """The limits that are not the usual ones."""
    given = dataclasses.asdict(limits or Limits())
    return {name: x for name, x in given.items() if x != dataclasses.asdict(Limits())[name]}


def _write_shards(
    shards: Shards, spans: dict[Path, range], *, ledger: Ledger, changed: collections.Counter[str]
) -> None:
    """Each file of the records of its span; `changed` counts the keys that a tar has otherwise."""
    write = _writer(next(iter(spans)), shards, ledger)
    total = sum(map(len, spans.values()))
    with tqdm(total=total, unit="records", disable=None, desc="writing") as bar:
        for path, span in spans.items():
            read = _read(shards, span, ledger=ledger, bar=bar)
            if write is write_tar:
                write(path, distinct_keys(read, changed=changed))
            else:
                write(path, (record for _, record in read))


def _writer(path: Path, shards: Shards, ledger: Ledger) -> Write:
    if path.suffix == ".tar":
        return write_tar
    if path.suffix == ".arrayrecord":
        return write_array_record
    table = write_parquet if path.suffix == ".parquet" else write_arrow
    known = path.parent / COLUMNS_FILE
    if not known.exists():
        columns = Columns()
        with tqdm(total=len(shards), unit="records", disable=None, desc="columns") as bar:
            for _, record in _read(shards, range(len(shards)), ledger=ledger, bar=bar):
                columns.add(record)
        save_schema(known, columns.schema())
    return functools.partial(table, schema=load_schema(known))


def _read(
    shards: Shards, span: range, *, ledger: Ledger, bar: Any
) -> Iterator[tuple[str, RawRecord]]:
    """The records of a span that can be read, and their shards; the others go to the ledger."""
    for index in span:
        shard, row = shards.locate(index)
        try:
            record = shard.read(row)
        except RecordError as error:
            ledger.add([error.fault])
        else:
            yield shard.name, record
        bar.update()


def _summary(shards: Shards, out: Path, *, made: int, number: int, ledger: Ledger) -> str:
    bad = {(fault.shard, fault.row) for fault in ledger.faults if fault.row is not None}
    there = f" ({number - made} were there)" if made < number else ""
    lost = f"; {ledger.summary()}" if ledger.total else ""
    shards_made = "1 shard" if number == 1 else f"{number} shards"
    kept = len(shards) - len(bad)
    return f"{kept} record{'s' if kept != 1 else ''} in {shards_made} in {out}{there}{lost}"


def _told(changed: collections.Counter[str]) -> str:
    if not changed:
        return ""
    are = "1 key was" if changed.total() == 1 else f"{changed.total()} keys were"
    more = " and others" if len(changed) > 1 else ""
    return (
        f"; {are} in the same tar before: the name of the source shard is in front, "
        f"of those of {next(iter(changed))}{more}"
    )
