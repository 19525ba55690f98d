import json
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.pipeline import Pipeline
from datarax.sources import GlyphsSource
from datarax.sources.grouping import join_equal
from datarax.train import TrainConfig, evaluate, load_run, loop, train
from datarax.train.model import build

SETTINGS = {
    "limit": 48,
    "batch_size": 16,
    "epochs": 3,
    "eval_every": 1,
    "log_every": 1,
    "warmup_steps": 2,
}
CONFIG = TrainConfig(**SETTINGS)
STEPS = 9


def metrics(path):
    return (path / "metrics.jsonl").read_bytes()


def leaves(run):
    return jax.tree.leaves(nnx.state(run.model, nnx.Param))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    return train(CONFIG, tmp_path_factory.mktemp("whole") / "run")


def test_the_run_directory_and_its_metrics(whole):
    names = {path.name for path in whole.path.iterdir()}
    assert names == {
        "config.toml",
        "metrics.jsonl",
        "timings.jsonl",
        "checkpoints",
        "evaluation.json",
    }
    assert {path.name for path in (whole.path / "checkpoints").iterdir()} == {"best", "last"}
    lines = [json.loads(line) for line in metrics(whole.path).splitlines()]
    trained = [line for line in lines if line["kind"] == "train"]
    validated = [line for line in lines if line["kind"] == "validation"]
    assert [line["step"] for line in trained] == list(range(1, STEPS + 1))
    assert [line["epoch"] for line in trained] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [line["step"] for line in validated] == [3, 6, 9]
    assert {"loss", "temperature", "learning_rate"} <= set(trained[0])
    assert trained[-1]["loss"] < trained[0]["loss"]
    assert not any("second" in key or "time" in key for line in lines for key in line)
    best = max(validated, key=lambda line: line["mrr"])
    assert whole.step == best["step"] == whole.evaluation["step"]


def test_the_same_seed_gives_the_same_file_and_another_another(whole, tmp_path, capfd):
    again = train(CONFIG, tmp_path / "again")
    assert metrics(again.path) == metrics(whole.path)
    assert again.evaluation == whole.evaluation
    assert all(map(np.array_equal, leaves(again), leaves(whole)))
    captured = capfd.readouterr()
    assert captured.err == captured.out == ""
    other = train(TrainConfig(**SETTINGS | {"seed": 1}), tmp_path / "other")
    first = metrics(whole.path).splitlines()[0]
    assert metrics(other.path).splitlines()[0] != first


def stop_at(monkeypatch, step, stop):
    take_step = loop.Trainer.take_step

    def stopping(self):
        result = take_step(self)
        if self.step == step:
            stop()
        return result

    monkeypatch.setattr(loop.Trainer, "take_step", stopping)


def test_interrupted_twice_and_resumed_is_uninterrupted(whole, tmp_path, monkeypatch):
    handler = signal.getsignal(signal.SIGINT)
    for step, resume in ((4, False), (6, True)):
        with monkeypatch.context() as patch:
            stop_at(patch, step, lambda: signal.raise_signal(signal.SIGINT))
            with pytest.raises(KeyboardInterrupt, match=f"step {step}"):
                train(CONFIG, tmp_path / "run", resume=resume)
        assert json.loads(metrics(tmp_path / "run").splitlines()[-1])["step"] == step
    assert signal.getsignal(signal.SIGINT) is handler
    resumed = train(CONFIG, tmp_path / "run", resume=True)
    assert metrics(resumed.path) == metrics(whole.path)
    assert resumed.evaluation == whole.evaluation
    assert all(map(np.array_equal, leaves(resumed), leaves(whole)))


@pytest.mark.slow  # the gate kills a run on shards
def test_a_crash_goes_on_from_the_last_checkpoint(whole, tmp_path, monkeypatch):
    def crash():
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        stop_at(patch, 5, crash)
        with pytest.raises(RuntimeError, match="power cut"):
            train(CONFIG, tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    resumed = train(CONFIG, tmp_path / "run", resume=True)
    assert metrics(resumed.path) == metrics(whole.path)
    assert all(map(np.array_equal, leaves(resumed), leaves(whole)))


def test_a_finished_run_resumes_to_itself(whole):
    before = metrics(whole.path)
    again = train(CONFIG, whole.path, resume=True)
    assert metrics(whole.path) == before
    assert again.evaluation == whole.evaluation


def test_a_loaded_run_is_the_trained_one(whole):
    loaded = load_run(str(whole.path))
    assert loaded.config == CONFIG
    assert loaded.evaluation == whole.evaluation == evaluate(loaded)
    columns = loaded.source("test").take(np.arange(20)).data
    vectors = loaded.embed("image", columns["image"])
    assert vectors.shape == (20, CONFIG.embedding_size)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(loaded.embed("image", columns["image"][3:5]), vectors[3:5])
    fused = loaded.embed("fused", {name: columns[name] for name in ("image", "outline")})
    assert fused.shape == vectors.shape
    assert loaded.embed("name", columns["name"][:0]).shape == (0, CONFIG.embedding_size)
    with pytest.raises(KeyError, match="no tower for 'sound'"):
        loaded.embed("sound", columns["image"])


def test_the_evaluation_is_that_of_a_numpy_loop(whole):
    columns = GlyphsSource("test", limit=48).take(np.arange(48)).data
    vectors = {name: whole.embed(name, columns[name]) for name in ("image", "name")}
    drawn = [columns["image"], columns["outline"]]
    groups = {"image": join_equal(drawn, [None, None]), "name": np.arange(48)}
    ranks = []
    for i in range(48):
        scores = vectors["name"] @ vectors["image"][i]
        right = (groups["image"] == groups["image"][i]) | (groups["name"] == groups["name"][i])
        ranks.append(1 + (scores[~right] > scores[right].max()).sum())
    rows = {(row["query"], row["target"]): row for row in whole.evaluation["retrieval"]}
    row = rows["image", "name"]
    assert row["records"] == whole.evaluation["records"] == 48
    assert row["recall_at_5"] == pytest.approx(np.mean(np.array(ranks) <= 5))
    assert row["median_rank"] == pytest.approx(np.median(ranks))
    assert len(rows) == 8
    assert ("fused", "name") in rows
    assert all(0 < r["chance_recall_at_1"] < r["ridge_recall_at_10"] <= 1 for r in rows.values())
    gap = np.linalg.norm(vectors["image"].mean(axis=0) - vectors["name"].mean(axis=0))
    assert whole.evaluation["modality_gap"]["image-name"] == pytest.approx(gap, rel=1e-4)
    assert json.loads((whole.path / "evaluation.json").read_text()) == whole.evaluation


def test_rows_that_are_not_valid_change_nothing(tmp_path):
    trainer = loop.Trainer(CONFIG, tmp_path)
    batch = next(trainer.pipeline).replace(metadata=None, valid_mask=np.arange(16) < 12)
    spoiled = {name: column.copy() for name, column in batch.data.items()}
    for column in spoiled.values():
        column[12:] = 200
    spoiled["outline"][12:] = np.nan

    def step(batch):
        state = jax.tree.map(jnp.copy, trainer.state)
        return loop.train_step(
            state,
            trainer.rest,
            batch,
            rng_key=jax.random.key(0),
            graph=trainer.graph,
            optimizer=trainer.optimizer,
        )

    (one, metrics), (other, spoiled_metrics) = step(batch), step(batch.replace(data=spoiled))
    assert metrics["loss"] == spoiled_metrics["loss"] > 0
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("towers", [("image", "name"), ("name", "outline")])
def test_fewer_towers(towers):
    graph, params, rest = nnx.split(build(TrainConfig(towers=towers)), nnx.Param, ...)
    source = GlyphsSource("train", limit=6)
    batch = next(Pipeline(source, batch_size=4, seed=0)).replace(metadata=None)

    def loss(params):
        return nnx.merge(graph, params, rest)(batch, rng_key=jax.random.key(0)).mean("loss")

    assert jax.eval_shape(loss, params).shape == ()
    assert set(nnx.to_pure_dict(params)["encoders"]) == {f"{x}_features" for x in towers}


def test_sigint_to_the_process_leaves_a_run_to_resume(whole, tmp_path):
    settings = SETTINGS | {"epochs": 2000, "towers": ("image", "name")}
    code = (
        "import sys; from datarax.train import TrainConfig, train;"
        f"train(TrainConfig(**{settings}), sys.argv[1])"
    )
    out = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(out)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 200
    while not (out / "metrics.jsonl").exists() or len(metrics(out).splitlines()) < 2:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "--resume" in message
    steps = [json.loads(line)["step"] for line in metrics(out).splitlines()]
    (kept,) = (out / "checkpoints" / "last").iterdir()
    assert int(kept.name) == steps[-1]
