"""The same records in every format, each part of which says whose it is; written without us."""

import io
import json
import tarfile

import msgpack
import numpy as np
import pyarrow as pa
from array_record.python.array_record_module import ArrayRecordWriter
from pyarrow import parquet

from datarax.sources.array_record import ArrayRecordShard
from datarax.sources.arrow import ArrowShard
from datarax.sources.folder import FolderShard
from datarax.sources.json_lines import JsonLinesShard
from datarax.sources.parquet import ParquetShard
from datarax.sources.tar import TarShard

FIELDS = {
    "text": {"from": "txt", "decode": "text", "length": 24},
    "number": {"from": ["n", "json.n"], "decode": "number", "dtype": "int32"},
    "vector": {"from": "npy", "decode": "array", "shape": [3], "missing": "mask"},
}


def text(number):
    return f"record {number} é"


def npy(number):
    content = io.BytesIO()
    np.save(content, np.full(3, number, np.float32))
    return content.getvalue()


def has_vector(number):
    return number % 3 > 0


def rows(count, start=0):
    """The records as a table would have them; every third lacks its vector."""
    return [
        {
            "__key__": f"k{number:03}",
            "txt": text(number),
            "n": number,
            "npy": npy(number) if has_vector(number) else None,
        }
        for number in range(start, start + count)
    ]


SCHEMA = pa.schema(
    [
        ("__key__", pa.string()),
        ("txt", pa.string()),
        ("n", pa.int32()),
        ("npy", pa.binary()),
    ]
)


def write_tar(path, count, start=0):
    with tarfile.open(path, "w") as tar:
        for row in rows(count, start):
            parts = {"txt": row["txt"].encode(), "json": json.dumps({"n": row["n"]}).encode()}
            if row["npy"]:
                parts["npy"] = row["npy"]
            for suffix, content in parts.items():
                member = tarfile.TarInfo(f"{row['__key__']}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def write_parquet(path, count, start=0, **options):
    table = pa.Table.from_pylist(rows(count, start), SCHEMA)
    options = {"row_group_size": 4, "write_page_checksum": True, **options}
    parquet.write_table(table, path, **options)


def write_arrow_file(path, count, start=0):
    table = pa.Table.from_pylist(rows(count, start), SCHEMA)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        for batch in table.to_batches(max_chunksize=4):
            writer.write_batch(batch)


def write_arrow_stream(path, count, start=0, **options):
    table = pa.Table.from_pylist(rows(count, start), SCHEMA)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, SCHEMA, **options) as writer:
        for batch in table.to_batches(max_chunksize=4):
            writer.write_batch(batch)


def write_array_record(path, count, start=0):
    writer = ArrayRecordWriter(str(path), "group_size:2")
    for row in rows(count, start):
        writer.write(msgpack.packb({name: x for name, x in row.items() if x is not None}))
    writer.close()


def write_json_lines(path, count, start=0):
    lines = []
    for row in rows(count, start):
        if row["npy"]:
            path.with_name(f"{row['__key__']}.npy").write_bytes(row["npy"])
            row["npy_path"] = f"{row['__key__']}.npy"
        del row["npy"]
        lines.append(json.dumps(row) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def write_folder(path, count, start=0):
    path.mkdir()
    for row in rows(count, start):
        (path / f"{row['__key__']}.txt").write_text(row["txt"], encoding="utf-8")
        (path / f"{row['__key__']}.json").write_text(json.dumps({"n": row["n"]}))
        if row["npy"]:
            (path / f"{row['__key__']}.npy").write_bytes(row["npy"])


FORMATS = {
    "tar": ("a.tar", write_tar, TarShard),
    "parquet": ("a.parquet", write_parquet, ParquetShard),
    "arrow file": ("a.arrow", write_arrow_file, ArrowShard),
    "arrow stream": ("b.arrow", write_arrow_stream, ArrowShard),
    "arrayrecord": ("a.arrayrecord", write_array_record, ArrayRecordShard),
    "jsonl": ("a.jsonl", write_json_lines, JsonLinesShard),
    "folder": ("folder", write_folder, FolderShard),
}
FILES = [name for name in FORMATS if name != "folder"]


def write(kind, folder, count=10, start=0):
    """A shard of a format in `folder`: its path."""
    name, writer, _ = FORMATS[kind]
    path = folder / name
    writer(path, count, start)
    return path


def identity(element):
    """The number that every part of a record says it is of; it must be one."""
    said = [int(element.data["number"]), int(element.metadata["key"].removeprefix("k"))]
    content = bytes(element.data["text"]).rstrip(b"\0").decode()
    said.append(int(content.split()[1]))
    assert content == text(said[0])
    if "vector" in element.data:
        said += element.data["vector"].astype(int).tolist()
    assert len(set(said)) == 1, said
    return said[0]
