"""Records as a tar."""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from datarax.conversion.plain_values import plain, refusal
from datarax.sources.cache import write_atomically
from datarax.sources.record import RawRecord
from datarax.sources.tar_index import split_name

_OTHERS = "choose parquet, arrow or arrayrecord, which take any name"


def write_tar(path: Path, records: Iterable[RawRecord]) -> None:
    """A tar of `records` at `path`, whole or not at all.

    A part becomes a member `<key>.<part>`: bytes as they are, text as UTF-8; anything else becomes
    `<key>.<part>.json`. `None` is left out, as a part that lacks. Headers hold names and sizes and
    nothing else that could differ: ustar, with PAX records for names that it cannot hold.

    Raises:
      ValueError: naming the record, if a key or part cannot be the name of a member that
        `TarShard` reads as the same (parts in any case), a key comes twice, a record has no part
        at all, or a value is none of JSON.
      OSError: if the file cannot be written.
    """

    def write(file: Any) -> None:
        keys: set[str] = set()
        with tarfile.open(
            fileobj=file, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="strict"
        ) as tar:
            for record in records:
                if record.key in keys:
                    raise ValueError(
                        f"record {record.key!r} comes twice in {path.name}: "
                        f"in a tar both would be one record"
                    )
                keys.add(record.key)
                for name, data in _members(record):
                    header = tarfile.TarInfo(name)  # mode 0644; owner and time 0
                    header.size = len(data)
                    tar.addfile(header, io.BytesIO(data))

    write_atomically(path, write)


def _members(record: RawRecord) -> Iterator[tuple[str, bytes]]:
    seen: set[str] = set()
    for part, value in record.parts.items():
        if value is None:
            continue
        suffix, data = _member(record, part, value)
        if suffix.lower() in seen:
            raise refusal(record, part, f"a tar would have the suffix {suffix.lower()!r} twice")
        seen.add(suffix.lower())
        yield _name(record, part, suffix), data
    if not seen:
        raise ValueError(f"record {record.key!r} has no parts: it cannot be in a tar")


def _member(record: RawRecord, part: str, value: Any) -> tuple[str, bytes]:
    try:
        match value:
            case bytes():
                return part, value
            case str():
                return part, value.encode()
        text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
        return f"{part}.json", text.encode()
    except (TypeError, ValueError) as error:
        raise refusal(record, part, f"cannot be JSON or text: {error}") from error


def _name(record: RawRecord, part: str, suffix: str) -> str:
    name = f"{record.key}.{suffix}"
    try:
        read = split_name(name.encode()) if record.key and part and "\0" not in name else None
    except ValueError:  # names that are refused, and lone surrogates
        read = None
    if read is None or read != (record.key.encode(), suffix.lower()):
        raise refusal(
            record,
            part,
            f"a tar cannot have the member {name!r}, which reads as another record: "
            f"rename it in the source, or {_OTHERS}",
        )
    return name
