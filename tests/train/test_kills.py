"""SIGKILL at any time, also during a save: resumed, the run is one that nobody disturbed."""

import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from flax import nnx
from shard_files import write_tars

from datarax.pipeline import read_ledger
from datarax.train import TrainConfig, load_run, train

BAD = (3, 17, 18, 30, 44, 59)
SETTINGS = {
    "epochs": 6,
    "batch_size": 8,
    "eval_every": 2,
    "save_every": 2,
    "log_every": 1,
    "warmup_steps": 4,
    "embedding_size": 8,
    "towers": ("caption", "npy"),
    "error_fraction": 1.0,
}
STEPS = 6 * 7  # 64 records less 12 that are held out, 8 at once
CODE = """
import sys
from datarax.train import TrainConfig, train
settings, out, resume = eval(sys.argv[1]), sys.argv[2], sys.argv[3] == "True"
train(TrainConfig(**settings), out, resume=resume, threads=2)
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = write_tars(tmp_path_factory.mktemp("data") / "tars", [30, 1, 33], bad=BAD)
    return {"data": str(folder), **SETTINGS}


@pytest.fixture(scope="module")
def whole(settings, tmp_path_factory):
    return train(TrainConfig(**settings), tmp_path_factory.mktemp("whole") / "run")


def start(settings, out):
    resume = (out / "config.toml").exists()
    return subprocess.Popen(
        [sys.executable, "-c", CODE, repr(settings), str(out), str(resume)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines(out):
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def is_saving(out):
    return any(out.glob("checkpoints/*/*.orbax-checkpoint-tmp*"))


def kill(process, out, *, when, pause=0.0, timeout=120):
    """SIGKILL `pause` seconds after `when` first holds; whether the process was still there."""
    deadline = time.monotonic() + timeout
    while not when():
        if process.poll() is not None:
            assert process.returncode == 0, process.stderr.read()
            return False
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    time.sleep(pause)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    return process.returncode == -signal.SIGKILL


def check_equal(whole, out):
    resumed = load_run(out)
    assert (out / "metrics.jsonl").read_bytes() == (whole.path / "metrics.jsonl").read_bytes()
    assert resumed.evaluation == whole.evaluation
    one, other = (jax.tree.leaves(nnx.state(r.model, nnx.Param)) for r in (whole, resumed))
    assert all(map(np.array_equal, one, other))
    expected, got = (read_ledger(run.path / "quarantine.jsonl") for run in (whole, resumed))
    assert len(got) == len(set(got)) == len(BAD)
    assert set(got) == set(expected)
    assert {int(fault.key) for fault in got} == set(BAD)


def check_kills(settings, whole, out, *, kills, seed):
    chance = random.Random(seed)
    killed = saving = 0
    for number in range(kills):
        process = start(settings, out)
        if number % 2:
            was = kill(process, out, when=lambda: is_saving(out))
            saving += was
        else:
            more = lines(out) + chance.randint(1, 3)
            pause = chance.uniform(0, 0.1)
            was = kill(process, out, when=lambda more=more: lines(out) >= more, pause=pause)
        killed += was
        if not was:
            break
    process = start(settings, out)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    check_equal(whole, out)
    return killed, saving


def test_killed_twice_and_resumed(settings, whole, tmp_path):
    assert check_kills(settings, whole, tmp_path / "run", kills=2, seed=0) == (2, 1)


@pytest.mark.slow
def test_killed_twenty_times_and_resumed(settings, whole, tmp_path):
    killed, saving = check_kills(settings, whole, tmp_path / "run", kills=20, seed=1)
    assert killed >= 15
    assert saving >= 5
