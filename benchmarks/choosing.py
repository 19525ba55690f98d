"""Which loss and which fusion: every variant on the built-in data, with equal budgets.

python benchmarks/choosing.py --epochs 8 --seeds 3 --out runs/choosing.jsonl

Each variant changes one setting of the default run and is trained from the same seeds for the same
number of steps; the table gives recall on the test split (characters never seen), mean and standard
deviation over the seeds, and the time of a step beside the default's, each the least of its runs of
the tenth percentile. A file that exists is gone on with.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path
from statistics import mean, stdev

import jax
import numpy as np
from flax import nnx

from datarax.train.config import FUSIONS, LOSSES, TrainConfig
from datarax.train.evaluation import embedded, retrieval_rows
from datarax.train.loop import Trainer
from datarax.train.run import embed_rows, split_table

PAIRS = [("name", "image"), ("image", "name"), ("name", "fused"), ("fused", "name")]
DEFAULT = TrainConfig()
VARIANTS = [("loss", x) for x in LOSSES] + [("fusion", x) for x in FUSIONS if x != DEFAULT.fusion]


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--epochs", type=int, default=8)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--limit", type=int, default=None)
    arguments.add_argument("--out", type=Path, default=Path("runs/choosing.jsonl"))
    options = arguments.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    done = read(options.out)
    for seed in range(options.seeds):
        for setting, value in VARIANTS:
            if any(one["run"] == [setting, value, seed] for one in done):
                continue
            line = {"run": [setting, value, seed], **measure(setting, value, seed, options)}
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(line, flush=True)
    for setting in ("loss", "fusion"):
        print(table(setting, read(options.out)))


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def measure(setting, value, seed, options):
    settings = {"epochs": options.epochs, "seed": seed, "limit": options.limit, setting: value}
    config = TrainConfig(**settings)
    trainer = Trainer(config, options.out.parent)
    seconds = []
    while trainer.step < trainer.total:
        start = time.perf_counter()
        jax.block_until_ready(trainer.take_step())
        seconds.append(time.perf_counter() - start)
    model = nnx.merge(trainer.graph, trainer.state.params, trainer.rest)
    test = split_table(config, "test")
    rows = retrieval_rows(embedded(test, partial(embed_rows, model)), PAIRS)
    return {
        "step_ms": 1e3 * float(np.quantile(seconds, 0.1)),
        "steps": trainer.total,
        "scores": {
            f"{row['query']}->{row['target']}": [row["recall_at_1"], row["recall_at_10"]]
            for row in rows
        },
    }


def table(setting, lines):
    """A Markdown table: mean and standard deviation over the seeds."""
    pairs = PAIRS[:2] if setting == "loss" else PAIRS[2:]
    names = [f"{a}->{b}" for a, b in pairs]
    head = [setting, "runs", *(f"{n} R@{k}" for n in names for k in (1, 10)), "step"]
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    default = DEFAULT.loss if setting == "loss" else DEFAULT.fusion
    usual = [x for x in lines if x["run"][:2] == ["loss", DEFAULT.loss]]
    for value in LOSSES if setting == "loss" else FUSIONS:
        runs = [x for x in lines if x["run"][:2] == [setting, value]]
        runs = usual if value == default else runs
        if not runs:
            continue
        cells = [
            spread([x["scores"][name][place] for x in runs]) for name in names for place in (0, 1)
        ]
        ratio = min(x["step_ms"] for x in runs) / min(x["step_ms"] for x in usual)
        mark = " (default)" if value == default else ""
        out.append(f"| `{value}`{mark} | {len(runs)} | " + " | ".join(cells) + f" | {ratio:.2f} |")
    return "\n".join(out) + "\n"


def spread(values):
    return f"{mean(values):.3f} ± {stdev(values) if len(values) > 1 else 0:.3f}"


if __name__ == "__main__":
    main()
