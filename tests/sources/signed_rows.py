"""Rows whose every cell says whose it is, so that one changed byte makes of none another's."""

import hashlib

import msgpack
import numpy as np
import pyarrow as pa
from array_record.python.array_record_module import ArrayRecordWriter
from pyarrow import parquet

from datarax.sources.array_record import ArrayRecordShard
from datarax.sources.arrow import ArrowShard
from datarax.sources.parquet import ParquetShard
from datarax.sources.record import RecordError

ROWS = 6
IN_GROUP = 3
FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SCHEMA = pa.schema(
    {
        "__key__": pa.string(),
        "bytes": pa.binary(),
        "text": pa.string(),
        "vector": pa.list_(pa.uint8(), 8),
        "list": pa.list_(pa.int64()),
        "image": FILE,
    }
)


def sign(row):
    return hashlib.blake2b(b"%d" % row, digest_size=8).digest()


def row_of(row):
    """A row as it is written; every third lacks its bytes."""
    name = sign(row)
    return {
        "__key__": name.hex(),
        "bytes": name * 2 if row % 3 else None,
        "text": name.hex() * 2,
        "vector": list(name),
        "list": [int.from_bytes(name, "little", signed=True)] * (row % 2 + 1),
        "image": {"bytes": name, "path": None},
    }


def table(rows=ROWS):
    return pa.Table.from_pylist([row_of(row) for row in range(rows)], SCHEMA)


def write_parquet(path, rows=ROWS, **options):
    options = {"row_group_size": IN_GROUP, "write_page_checksum": True, **options}
    parquet.write_table(table(rows), path, **options)


def write_arrow(path, rows=ROWS, *, new=pa.ipc.new_stream, **options):
    options = pa.ipc.IpcWriteOptions(**options)
    with pa.OSFile(str(path), "wb") as file, new(file, SCHEMA, options=options) as writer:
        for batch in table(rows).to_batches(max_chunksize=IN_GROUP):
            writer.write_batch(batch)


def write_arrow_file(path, rows=ROWS, **options):
    write_arrow(path, rows, new=pa.ipc.new_file, **options)


def write_array_record(path, rows=ROWS, options="group_size:1"):
    writer = ArrayRecordWriter(str(path), options)
    for row in range(rows):
        found = row_of(row)
        found["image"] = found["image"]["bytes"]
        writer.write(msgpack.packb(found))
    writer.close()


KINDS = {
    "parquet": (write_parquet, {"compression": "none", "use_dictionary": False}, ParquetShard),
    "parquet zstd": (write_parquet, {"compression": "zstd"}, ParquetShard),
    "parquet v2": (write_parquet, {"data_page_version": "2.0"}, ParquetShard),
    "arrow stream": (write_arrow, {}, ArrowShard),
    "arrow file": (write_arrow_file, {}, ArrowShard),
    "arrow zstd": (write_arrow, {"compression": "zstd"}, ArrowShard),
    "arrayrecord": (write_array_record, {}, ArrayRecordShard),
}


def plain(value):
    return value.tolist() if isinstance(value, np.ndarray) else value


def part_of(name, row):
    """A part as it is read."""
    value = row_of(row)[name]
    return value["bytes"] if name == "image" else value


def owner(name, value):
    """The row whose part this is; `None` if no row has this one."""
    rows = [row for row in range(ROWS) if plain(value) == part_of(name, row)]
    return rows[0] if len(rows) == 1 else None  # null is of several


def read_all(shard, most=4 * ROWS):
    """For each row: an error, or its parts with `__key__`."""
    found = []
    for row in range(min(len(shard), most)):
        try:
            record = shard.read(row)
        except RecordError as error:
            found.append(error)
        else:
            found.append({"__key__": record.key, **record.parts})
    errors = [(row, error.fault) for row, error in enumerate(found) if isinstance(error, Exception)]
    assert all((fault.shard, fault.row) == (shard.name, row) for row, fault in errors)
    assert all(fault.reason and "\n" not in fault.reason for _, fault in errors)
    assert all(fault.shard == shard.name and fault.reason for fault in shard.faults)
    return found


def is_right(found, row):
    return {name: plain(value) for name, value in found.items()} == {
        name: part_of(name, row) for name in SCHEMA.names
    }


def assert_paired(found):
    """No two parts of a record are of different rows."""
    names = {name for name in found if name in SCHEMA.names}
    owners = {owner(name, found[name]) for name in names} - {None}
    assert len(owners) <= 1, found
