"""A run without training: files as `train` writes them, embeddings made from the pictures."""

import dataclasses
import json
from pathlib import Path

import numpy as np
from flax import nnx

from datarax.sources.glyph_drawing import draw_all, encode_name
from datarax.sources.memory import MemorySource
from datarax.train.config import TrainConfig, dump_config

HOSTILE = "<script>alert('x')</script> & \"quotes\" $x_"


@dataclasses.dataclass(frozen=True)
class FakeRun:
    """Names lie near the pictures of their rows, nearer for even rows: hits and misses."""

    path: Path
    names: list[str]
    images: np.ndarray
    config: TrainConfig
    model: nnx.Module

    def source(self, split):
        assert split in ("train", "validation", "test", "all")
        names = np.stack([encode_name(name) for name in self.names])
        return MemorySource({"name": names, "image": self.images})

    def embed(self, field, arrays):
        if field == "image":
            return self._project(arrays)
        known = {encode_name(name).tobytes(): row for row, name in enumerate(self.names)}
        rows = [known[array.tobytes()] for array in arrays]
        noise = np.random.default_rng(1).normal(size=(len(self.names), 16))[rows]
        wrong = np.where(np.array(rows)[:, None] % 2 == 0, 0.02, 0.5)
        return _unit(self._project(self.images[rows]) + wrong * noise)

    def _project(self, images):
        matrix = np.random.default_rng(0).normal(size=(32 * 32, 16))
        flat = images.reshape(len(images), -1) / 255.0
        return _unit((flat - self.images.mean(0).ravel() / 255.0) @ matrix)


def _unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_run(path, names, images):
    path.mkdir(parents=True, exist_ok=True)
    model = nnx.Linear(300, 40, rngs=nnx.Rngs(0))
    run = FakeRun(path, list(names), images, TrainConfig(towers=("image", "name")), model)
    (path / "config.toml").write_text(dump_config(run.config), encoding="utf-8")
    (path / "evaluation.json").write_text(json.dumps(evaluation(len(names))), encoding="utf-8")
    steps = range(0, 600, 10)
    metrics = [
        {
            "kind": "train",
            "step": step,
            "epoch": step // 20,
            "loss": 5 * 0.99 ** (step / 4) + 0.3,
            "temperature": 0.07 * 0.999**step,
            "learning_rate": min(step / 50, 1) * 2e-3,
        }
        for step in steps
    ]
    metrics += [
        {"kind": "validation", "step": step, "recall_at_1": step / 1500, "recall_at_10": step / 800}
        for step in range(100, 600, 100)
    ]
    _write_lines(path / "metrics.jsonl", metrics)
    timings = [{"step": s, "seconds": s / 4, "records_per_second": 3000.0 + s} for s in steps]
    _write_lines(path / "timings.jsonl", timings)
    return run


def letters(path, names=None):
    """A run on 40 letters; `names` replaces the first names."""
    codes = [*range(ord("a"), ord("u")), *range(0x3B1, 0x3C5)]
    own = [f"{'latin' if code < 128 else 'greek'} letter {code:x}" for code in codes]
    own[: len(names or [])] = names or []
    return make_run(path, own, draw_all("image", codes))


def evaluation(records):
    row = {
        "records": records,
        "recall_at_1": 0.4512,
        "recall_at_5": 0.66,
        "recall_at_10": 0.7348,
        "median_rank": 2.0,
        "mean_rank": 21.5,
        "mrr": 0.549,
        "chance_recall_at_1": 1 / records,
        "chance_recall_at_5": 5 / records,
        "ridge_recall_at_1": 0.151,
        "ridge_recall_at_10": 0.39,
    }
    pairs = [("image", "name"), ("name", "image"), ("fused", "name")]
    return {
        "split": "test",
        "records": records,
        "seed": 0,
        "retrieval": [{"query": query, "target": target} | row for query, target in pairs],
        "fused": ["image", "outline"],
        "modality_gap": {"image-name": 0.412, "outline-name": 0.387},
        "temperature": 0.043,
    }


def _write_lines(path, lines):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
