"""The embeddings of every record of some shards, as Parquet files beside their keys."""

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from tqdm import tqdm

from datarax.core.element_batch import Batch
from datarax.pipeline.caps import ErrorCaps
from datarax.pipeline.ledger import Ledger
from datarax.pipeline.pipeline import Pipeline
from datarax.sources.cache import write_atomically
from datarax.sources.open import open_shards
from datarax.sources.shard import Shard
from datarax.sources.sharded import ShardedSource
from datarax.train.config import FUSED, TrainConfig
from datarax.train.files import write_file
from datarax.train.run import EMBED_ROWS, Run
from datarax.train.run_directory import LEDGER_FILE
from datarax.train.towers import columns_of, fields_of, limits_of, masked_towers

STATE_FILE = "embedded.json"
IDENTITY = ("key", "shard", "row")


def embed_shards(
    run: Run, data: str | Sequence[str], out: str | Path, *, threads: int | None = None
) -> str:
    """Write `part-00000.parquet` for the first shard of `data`, and so on, into `out`.

    A row for each record that can be read, in the shard's order: `key`, `shard`, `row`, and for
    each tower (and `fused`) its embedding, a list of float32, null where the record lacks the
    field. A tower that is called like one of the first three is in `key_embedding` and so on.
    Other records are lines of `quarantine.jsonl`. A file appears whole or not at all, and
    one that is there is not made again: killed and called again, the files are byte for byte those
    of an undisturbed call.

    Args:
      run: the trained model, and the fields that it reads.
      data: shards, as for `datarax train`.
      out: the directory; made if it does not exist.
      threads: that read and decode; `None` is one for each processor, up to 8.

    Returns:
      What was done, in one line; the columns that are not called like their towers.

    Raises:
      ValueError: if the run is not on shards, `data` has none, or `out` holds the embeddings of
        other shards or of another model.
      ImportError: without `datarax[parquet]`.
      OSError: if a file cannot be read or written.
    """
    _require_pyarrow()
    out = Path(out)
    shards = open_shards(data, limits=limits_of(run.config))
    _check_state(run, shards, out)
    for leftover in out.glob(".part-*.part"):  # of a call that was killed
        leftover.unlink()
    ledger = Ledger(out / LEDGER_FILE)
    made = rows = 0
    for number, shard in enumerate(tqdm(shards, unit="shard", disable=None)):
        path = out / f"part-{number:05}.parquet"
        if path.exists():
            continue
        table = _table(run, shard, ledger=ledger, threads=threads)
        _write(path, table)
        made += 1
        rows += table.num_rows
    kept = f", {len(shards) - made} were there" if made < len(shards) else ""
    bad = f"; {ledger.summary()}" if ledger.total else ""
    renamed = "".join(
        f"; {tower} is in column {column}"
        for column, tower in tower_columns(run.config).items()
        if column != tower
    )
    return f"{rows} records of {made} shards embedded in {out}{kept}{renamed}{bad}"


def tower_columns(config: TrainConfig) -> dict[str, str]:
    """The towers, and the fused one, by the columns that hold their embeddings.

    Example:
      >>> tower_columns(TrainConfig(data="a.tar", towers=("image", "key")))
      {'image': 'image', 'key_embedding': 'key'}
    """
    towers = [*config.towers, *([FUSED] if config.fused_towers else [])]
    columns: dict[str, str] = {name: name for name in towers if name not in IDENTITY}
    for tower in [name for name in towers if name in IDENTITY]:
        column = f"{tower}_embedding"
        while column in columns:
            column += "_embedding"
        columns[column] = tower
    return dict(sorted(columns.items(), key=lambda pair: towers.index(pair[1])))


def _require_pyarrow() -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise ImportError("Parquet needs pyarrow: pip install 'datarax[parquet]'")


def _check_state(run: Run, shards: Sequence[Shard], out: Path) -> None:
    """Refuse a directory of other embeddings; note in a new one whose they will be."""
    state = {
        "run": str(run.path.resolve()),
        "step": run.step,
        "parameters": _digest(run),
        "shards": [[shard.name, shard.identity()] for shard in shards],
    }
    path = out / STATE_FILE
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        differences = [name for name in state if kept.get(name) != state[name]]
        if differences:
            raise ValueError(
                f"{out} holds embeddings of other {' and '.join(differences)}: choose another place"
            )
        return
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty, and holds no embeddings: choose another place")
    out.mkdir(parents=True, exist_ok=True)
    write_file(path, (json.dumps(state, indent=1) + "\n").encode())


def _digest(run: Run) -> str:
    """16 hex digits that change with the model."""
    digest = hashlib.blake2b(digest_size=8)
    for leaf in jax.tree.leaves(nnx.state(run.model, nnx.Param)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _table(run: Run, shard: Shard, *, ledger: Ledger, threads: int | None) -> Any:
    import pyarrow as pa

    columns: dict[str, list[Any]] = {name: [] for name in (*IDENTITY, *tower_columns(run.config))}
    if len(shard) == 0:
        ledger.add(shard.faults)
    else:
        for batch in _batches(run, shard, ledger=ledger, threads=threads):
            _append(run, batch, columns)
    vector = pa.list_(pa.float32(), run.config.embedding_size)
    kinds = {"key": pa.string(), "shard": pa.string(), "row": pa.int64()}
    return pa.table(
        {name: pa.array(values, kinds.get(name, vector)) for name, values in columns.items()}
    )


def _batches(run: Run, shard: Shard, *, ledger: Ledger, threads: int | None) -> Any:
    source = ShardedSource([shard], fields=fields_of(run.config))
    pipeline = Pipeline(
        source,
        batch_size=EMBED_ROWS,
        seed=0,
        shuffle=False,
        fit_lengths=False,
        host=0,
        hosts=1,
        threads=threads,
        ledger=ledger,
        error_caps=ErrorCaps(fraction=run.config.error_fraction, consecutive=run.config.error_run),
    )
    with pipeline:
        yield from pipeline


def _append(run: Run, batch: Batch, columns: dict[str, list[Any]]) -> None:
    valid = np.flatnonzero(np.asarray(batch.valid_mask)).tolist()
    about = batch.metadata or []
    for name in IDENTITY:
        columns[name] += [about[row][name] for row in valid]
    masked = masked_towers(run.config)
    for column, tower in tower_columns(run.config).items():
        parts = run.config.parts_of(tower)
        vectors = run.embed(tower, {name: batch[name] for name in columns_of(parts, masked)})
        there = batch.where(*parts)
        columns[column] += [vectors[row] if there[row] else None for row in valid]


def _write(path: Path, table: Any) -> None:
    from pyarrow import parquet

    def write(file: Any) -> None:
        parquet.write_table(table, file, compression="zstd", write_page_checksum=True)

    write_atomically(path, write)
