"""Sources whose every field tells which record it is of, and which fail where they are told to."""

import json
import subprocess
import sys

import jax
import numpy as np

from datarax.core.config import DataraxModuleConfig
from datarax.core.data_source import DataSourceModule
from datarax.core.element_batch import Element
from datarax.pipeline.pipeline import Pipeline
from datarax.sources import MemorySource
from datarax.sources.mixture import MixtureSource
from datarax.sources.open import open_source
from datarax.sources.record import Fault, RecordError, RecordSkipped


class Marked(DataSourceModule):
    """Record `i` holds `first + i` in every field; every third lacks its caption."""

    optional = ("caption",)

    def __init__(self, size, *, first=0, bad=(), skipped=(), prefix="", lost=()):
        super().__init__(DataraxModuleConfig())
        self.size, self.first, self.prefix = size, first, prefix
        self.bad, self.skipped = frozenset(bad), frozenset(skipped)
        self.faults = tuple(lost)

    def __len__(self):
        return self.size

    def fault(self, index):
        return Fault(f"{self.prefix}{index % 3}.tar", str(index), index // 3, "image", "broken")

    def __getitem__(self, index):
        if index in self.bad:
            raise RecordError(self.fault(index))
        if index in self.skipped:
            raise RecordSkipped(Fault("s.tar", str(index), index, "caption", "lacks"))
        mark = self.first + index
        data = {
            "image": np.full((2, 3), mark % 256, np.uint8),
            "id": np.int32(mark),
        }
        if index % 3:
            data["caption"] = np.full(4, mark, np.float32)
        data["nested"] = {"inner": np.full(1, mark, np.int16)}
        about = {"key": str(index), "shard": f"{self.prefix}{index % 3}.tar", "row": index // 3}
        return Element({f"{self.prefix}{name}": x for name, x in data.items()}, metadata=about)

    def element_spec(self):
        spec = {
            "image": jax.ShapeDtypeStruct((2, 3), np.uint8),
            "id": jax.ShapeDtypeStruct((), np.int32),
            "caption": jax.ShapeDtypeStruct((4,), np.float32),
            "nested": {"inner": jax.ShapeDtypeStruct((1,), np.int16)},
        }
        return {f"{self.prefix}{name}": x for name, x in spec.items()}

    def fingerprint(self):
        return f"marked {self.size} {self.first} {sorted(self.bad)} {sorted(self.skipped)}"


def memory():
    return MemorySource(
        {"id": np.arange(11, dtype=np.int32), "x": np.arange(22, dtype=np.uint8).reshape(11, 2)},
        presence={"x": np.arange(11) % 4 > 0},
    )


def mixture():
    sources = {"marked": Marked(13, bad=[2, 7]), "memory": memory()}
    return MixtureSource(sources, {"marked": 2, "memory": 1}, records=23)


SOURCES = {
    "marked": lambda: Marked(17, bad=[0, 5, 6], skipped=[9]),
    "memory": memory,
    "mixture": mixture,
}


def of_files(paths, fields, *, mixed):
    """Shards of any format; mixed with records from memory that have other fields."""
    source = open_source(paths, fields=fields)
    if not mixed:
        return source
    return MixtureSource({"files": source, "memory": memory()}, {"files": 2, "memory": 1})


def pipeline(source, **options):
    made = SOURCES[source]() if isinstance(source, str) else source
    made = of_files(**made) if isinstance(made, dict) else made
    return Pipeline(made, **{"batch_size": 4, "seed": 3, "threads": 0, **options})


def content(batch):
    """Everything in a batch as comparable values: names, shapes, types, bytes and metadata."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(batch.replace(metadata=None))
    arrays = [
        [jax.tree_util.keystr(path), str(x.dtype), list(x.shape), np.asarray(x).tobytes().hex()]
        for path, x in leaves
    ]
    return [arrays, json.loads(json.dumps(batch.metadata))]


def rests_in_a_fresh_process(questions, *, threads):
    """What pipelines give that are restored there: of (source, state, steps) each."""
    question = json.dumps([questions, threads])
    ended = subprocess.run(
        [sys.executable, __file__], input=question, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def answer():
    questions, threads = json.load(sys.stdin)
    given = []
    for source, state, steps in questions:
        with pipeline(source, threads=threads) as restored:
            restored.restore(state)
            given.append([content(next(restored)) for _ in range(steps)])
    print(json.dumps(given))


if __name__ == "__main__":
    answer()
