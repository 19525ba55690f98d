"""The records of a source that a ledger lists, however the shards' paths were typed then."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from datarax.pipeline.ledger import read_ledger
from datarax.sources.record import Fault, RecordError
from datarax.sources.shard import Shard
from datarax.sources.sharded import ShardedSource
from datarax.sources.subset import rows_of_faults

_SHOWN = 3  # names
_COMPARED = 16  # keys of a shard


def listed_rows(source: ShardedSource, ledger: str | Path) -> list[int]:
    """The numbers of the records of `source` that a ledger lists, in order.

    A shard is listed under its name, or another path of the same file. If none is, the names were
    typed in another place: one means the shard whose path ends like it, by the most parts, the
    file's name at least; all differ in the same beginning, and the records have the listed keys.
    What is listed of other shards is left out.

    Raises:
      ValueError: if none is listed, the file is no ledger, or it is open which shard is meant.
      OSError: if a file cannot be read.
    """
    faults = [fault for fault in read_ledger(ledger) if fault.row is not None]
    shards = {shard.name: shard for shard in source.shards.shards}
    listed = list(dict.fromkeys(fault.shard for fault in faults))
    meant = _same_files(listed, shards)
    if not meant:
        meant = _same_beginning(_same_ends(listed, shards, ledger=ledger))
        for name, here in meant.items():
            _check_keys([f for f in faults if f.shard == name], shards[here], ledger=ledger)
    known = [fault for fault in faults if fault.shard in meant]
    rows = rows_of_faults(
        source, [dataclasses.replace(fault, shard=meant[fault.shard]) for fault in known]
    )
    if not rows:
        what = f"records of {_some(listed)}" if listed else "no records"
        raise ValueError(f"{ledger} lists no record of {_some(shards)}, but {what}")
    return rows


def _same_files(listed: Iterable[str], shards: Iterable[str]) -> dict[str, str]:
    places = {os.path.realpath(name): name for name in shards} | {name: name for name in shards}
    found = {name: places.get(name, places.get(os.path.realpath(name))) for name in listed}
    return {name: here for name, here in found.items() if here is not None}


def _same_ends(
    listed: Iterable[str], shards: Iterable[str], *, ledger: str | Path
) -> dict[str, str]:
    """The shard that each name means, if any: each is of all the nearest to the other.

    Example:
      >>> _same_ends(["d/train/0.tar", "d/test/0.tar"], ["/x/d/train/0.tar"], ledger="a")
      {'d/train/0.tar': '/x/d/train/0.tar'}
    """
    by_file: dict[str, list[str]] = {}
    for here in shards:
        by_file.setdefault(Path(os.path.realpath(here)).name, []).append(here)
    wanted: dict[str, list[str]] = {}
    for name in listed:
        near = _nearest(name, by_file.get(Path(name).name, []))
        if len(near) > 1:
            raise _open_question([name], near, ledger)
        for here in near:
            wanted.setdefault(here, []).append(name)
    found = {}
    for here, names in wanted.items():
        near = _nearest(here, names)
        if len(near) > 1:
            raise _open_question(near, [here], ledger)
        found[near[0]] = here
    return found


def _same_beginning(meant: dict[str, str]) -> dict[str, str]:
    """Those whose paths differ in the same beginning as the two that share the longest end.

    Example:
      >>> _same_beginning({"d/train/0.tar": "/d/train/0.tar", "d/test/1.tar": "/d/train/1.tar"})
      {'d/train/0.tar': '/d/train/0.tar'}
    """
    shared = {name: _shared_parts(name, here) for name, here in meant.items()}
    begin = {
        name: (_parts(name)[: -shared[name]], _parts(here)[: -shared[name]])
        for name, here in meant.items()
    }
    longest = max(shared, key=lambda name: shared[name], default="")
    return {name: here for name, here in meant.items() if begin[name] == begin[longest]}


def _nearest(path: str, others: Sequence[str]) -> list[str]:
    """Those of the other paths that share the most last parts with a path."""
    shared = {other: _shared_parts(path, other) for other in others}
    return [other for other, count in shared.items() if count == max(shared.values())]


def _shared_parts(a: str, b: str) -> int:
    """How many parts at their ends are the same.

    Example:
      >>> _shared_parts("d/train/0.tar", "/x/train/0.tar")
      2
    """
    pairs = list(zip(_parts(a)[::-1], _parts(b)[::-1], strict=False))
    return next((place for place, (x, y) in enumerate(pairs) if x != y), len(pairs))


def _parts(path: str) -> tuple[str, ...]:
    return Path(os.path.realpath(path) if os.path.exists(path) else path).parts


def _check_keys(faults: Sequence[Fault], shard: Shard, *, ledger: str | Path) -> None:
    """Refuse a ledger of other records: files of other places may be called the same."""
    for fault in faults[:_COMPARED]:
        row = fault.row or 0
        if fault.key in ("", str(row)):  # not known where the record could not be read
            continue
        key = _key(shard, row)
        if key != fault.key:
            there = "no such row" if key is None else repr(key)
            raise ValueError(
                f"{ledger} lists record {fault.key!r} in row {row} of {fault.shard}, and "
                f"{shard.name} has {there}: they are not the same shards"
            )


def _key(shard: Shard, row: int) -> str | None:
    if row >= len(shard):
        return None
    try:
        return shard.read(row).key
    except RecordError as error:
        return error.fault.key


def _open_question(listed: Sequence[str], shards: Sequence[str], ledger: str | Path) -> ValueError:
    return ValueError(
        f"{ledger} lists {_some(listed)}, which may be {_some(shards)}: type the paths as then"
    )


def _some(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more
