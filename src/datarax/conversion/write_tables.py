"""Records as Parquet and Arrow tables."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from datarax.conversion.plain_values import plain, refusal, same
from datarax.sources.cache import write_atomically
from datarax.sources.record import RawRecord

KEY = "__key__"
BATCH_RECORDS = 128
BATCH_BYTES = 2**25

_NESTED = "list or dict"
_OTHER = "which arrayrecord takes"
_KINDS: dict[type, str] = {
    bytes: "bytes",
    str: "text",
    bool: "bool",
    int: "int",
    float: "float",
    list: _NESTED,
    tuple: _NESTED,
    np.ndarray: _NESTED,
    dict: _NESTED,
}


class Columns:
    """The columns of a table of records, known once all of them have been added.

    Parts that are bytes, text, bool, int (64 bits) or float in one record are that or null in every
    other. Lists and dicts have the type that pyarrow finds to hold all of them.

    Example:
      >>> columns = Columns()
      >>> columns.add(RawRecord("a", {"png": b"", "boxes": [[1, 2]]}))
      >>> columns.schema().names
      ['__key__', 'png', 'boxes']
    """

    def __init__(self) -> None:
        self._pa = require_pyarrow()
        self._met: dict[str, tuple[str, str] | None] = {}  # kind, and the first key with it
        self._nested: dict[str, Any] = {}

    def add(self, record: RawRecord) -> None:
        """Take in the parts of one more record.

        Raises:
          ValueError: naming the part and the record, if it is of another type than before, of one
            that tables do not have, or called `__key__`.
        """
        for part, value in record.parts.items():
            if part == KEY:
                raise refusal(record, KEY, "the name is taken by the key")
            if value is None:
                self._met.setdefault(part, None)
                continue
            kind = _KINDS.get(type(value))
            if kind is None:
                raise refusal(record, part, f"no table holds a {type(value).__name__}")
            before = self._met.get(part)
            if before is not None and before[0] != kind:
                raise refusal(
                    record,
                    part,
                    f"{kind}, but {before[0]} in record {before[1]!r}: mixed types, {_OTHER}",
                )
            self._met[part] = before or (kind, record.key)
            if kind == _NESTED:
                self._widen(record, part, value)

    def schema(self) -> Any:
        """A column for `__key__`, then one for each part in the order in which they first came."""
        pa = self._pa
        types = {
            "bytes": pa.binary(),
            "text": pa.string(),
            "bool": pa.bool_(),
            "int": pa.int64(),
            "float": pa.float64(),
        }
        columns = [(KEY, pa.string())]
        for part, met in self._met.items():
            if met is None:
                columns.append((part, pa.null()))
            else:
                columns.append((part, self._nested[part] if met[0] == _NESTED else types[met[0]]))
        return pa.schema(columns)

    def _widen(self, record: RawRecord, part: str, value: Any) -> None:
        pa = self._pa
        try:
            kind = pa.array([value]).type
            known = self._nested.setdefault(part, kind)
            if kind != known:
                both = [pa.schema([(part, each)]) for each in (known, kind)]
                self._nested[part] = pa.unify_schemas(both, promote_options="permissive")[0].type
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise refusal(record, part, f"mixed types, {_OTHER}: {error}") from error


def write_parquet(path: Path, records: Iterable[RawRecord], *, schema: Any) -> None:
    """A Parquet file of `records` at `path`, whole or not at all.

    Row groups of at most 128 records, and of one record or 32 MiB; pages have checksums.

    Args:
      path: the file.
      records: that `schema` was made from, or some of them.
      schema: of `Columns`.

    Raises:
      ValueError: naming the record and part that does not fit its column.
      OSError: if the file cannot be written.
    """
    from pyarrow import parquet

    def open_writer(file: Any) -> Any:
        return parquet.ParquetWriter(
            file, schema, compression="zstd", use_dictionary=False, write_page_checksum=True
        )

    _write(path, records, schema=schema, open_writer=open_writer)


def write_arrow(path: Path, records: Iterable[RawRecord], *, schema: Any) -> None:
    """An Arrow IPC file of `records`; the same as `write_parquet` in all else."""
    from pyarrow import ipc

    def open_writer(file: Any) -> Any:
        return ipc.new_file(file, schema)

    _write(path, records, schema=schema, open_writer=open_writer)


def save_schema(path: Path, schema: Any) -> None:
    """Keep a schema at `path`, as Arrow's IPC has it."""
    write_atomically(path, lambda file: _put(file, schema.serialize().to_pybytes()))


def load_schema(path: Path) -> Any:
    """The schema that `save_schema` kept.

    Raises:
      ValueError: if the file holds none.
    """
    pa = require_pyarrow()
    try:
        return pa.ipc.read_schema(pa.py_buffer(path.read_bytes()))
    except pa.ArrowException as error:
        raise ValueError(f"{path} holds no schema ({error}): convert with --overwrite") from error


def require_pyarrow() -> Any:
    """The module `pyarrow`.

    Raises:
      ImportError: if it is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise ImportError("to write tables: pip install 'datarax[parquet]'") from error
    return pa


def _put(file: Any, data: bytes) -> None:
    file.write(data)


def _write(
    path: Path, records: Iterable[RawRecord], *, schema: Any, open_writer: Callable[[Any], Any]
) -> None:
    pa = require_pyarrow()

    def write(file: Any) -> None:
        try:
            with open_writer(file) as writer:
                for batch in _batches(records):
                    writer.write_batch(_record_batch(batch, schema))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ValueError(f"{path.name} cannot be written: {error}") from error

    write_atomically(path, write)


def _batches(records: Iterable[RawRecord]) -> Iterator[list[RawRecord]]:
    batch: list[RawRecord] = []
    total = 0
    for record in records:
        size = sum(map(_size, record.parts.values()))
        if batch and (len(batch) == BATCH_RECORDS or total + size > BATCH_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(record)
        total += size
    if batch:
        yield batch


def _size(value: Any) -> int:
    match value:
        case bytes() | str():
            return len(value)
        case np.ndarray():
            return int(value.nbytes)
        case list() | tuple():
            return sum(map(_size, value))
        case dict():
            return sum(map(_size, value.values()))
    return 8


def _record_batch(records: list[RawRecord], schema: Any) -> Any:
    pa = require_pyarrow()
    columns: list[list[Any]] = [[record.key for record in records]]
    columns += [[record.parts.get(part) for record in records] for part in schema.names[1:]]
    arrays = [
        _column(records, values, field=field) for values, field in zip(columns, schema, strict=True)
    ]
    return pa.record_batch(arrays, schema=schema)


def _column(records: list[RawRecord], values: list[Any], *, field: Any) -> Any:
    pa = require_pyarrow()
    try:
        made = pa.array(values, field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        for record, value in zip(records, values, strict=True):
            _check_fits(record, field, value)
        raise
    if pa.types.is_nested(field.type):  # pyarrow drops the keys that a struct lacks, in silence
        for record, value, kept in zip(records, values, made.to_pylist(), strict=True):
            if not same(plain(value), kept):
                raise refusal(record, field.name, f"does not fit {field.type}")
    return made


def _check_fits(record: RawRecord, field: Any, value: Any) -> None:
    pa = require_pyarrow()
    try:
        pa.array([value], field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise refusal(record, field.name, f"does not fit {field.type}: {error}") from error
