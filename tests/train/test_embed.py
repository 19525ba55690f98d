"""Embeddings of shards in Parquet: each record once, with its key, byte for byte after a kill."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pyarrow.parquet as parquet
import pytest
from flax import nnx
from shard_files import write_tars

from datarax.cli import main
from datarax.pipeline import read_ledger
from datarax.sources import Fields
from datarax.sources.tar import TarSource
from datarax.train import TrainConfig, train
from datarax.train.embed import embed_shards

COUNTS = (13, 0, 1, 9, 6)
BAD = (4, 14)
CODE = """
import sys
from datarax.train import load_run
from datarax.train.embed import embed_shards
embed_shards(load_run(sys.argv[1]), sys.argv[2], sys.argv[3])
"""


def lacks(number):
    return ("npy",) if number % 3 == 1 else ()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("embed")


@pytest.fixture(scope="module")
def run(place):
    folder = write_tars(place / "train", [40], lacking=lacks)
    config = TrainConfig(
        data=str(folder),
        towers=("caption", "npy"),
        fused=("caption", "npy"),
        epochs=1,
        batch_size=8,
        embedding_size=8,
    )
    return train(config, place / "run")


@pytest.fixture(scope="module")
def data(place):
    return write_tars(place / "data", COUNTS, bad=BAD, lacking=lacks)


@pytest.fixture(scope="module")
def whole(run, data, place):
    said = embed_shards(run, str(data), place / "whole")
    assert said.startswith(f"{sum(COUNTS) - len(BAD)} records of 5 shards")
    return place / "whole"


def files(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob("part-*.parquet"))}


def test_every_record_once_beside_its_key(run, data, whole):
    assert list(files(whole)) == [f"part-{n:05}.parquet" for n in range(5)]
    rows = [
        row
        for n in range(5)
        for row in parquet.read_table(whole / f"part-{n:05}.parquet").to_pylist()
    ]
    good = [n for n in range(sum(COUNTS)) if n not in BAD]
    assert [int(row["key"]) for row in rows] == good
    assert {row["shard"] for row in rows} == {str(data / f"data-{n}.tar") for n in (0, 2, 3, 4)}
    for row in rows:
        number = int(row["key"])
        assert (row["npy"] is None) == (number % 3 == 1)
        assert len(row["caption"]) == 8
        np.testing.assert_allclose(np.linalg.norm(row["caption"]), 1, rtol=1e-5)
    faults = read_ledger(whole / "quarantine.jsonl")
    assert sorted(int(fault.key) for fault in faults) == list(BAD)


def test_they_are_those_of_the_run(run, whole):
    table = parquet.read_table(whole / "part-00003.parquet")
    source = TarSource(table["shard"][0].as_py(), fields=Fields.from_mapping(run.config.fields))
    for key, row, vector in zip(
        table["key"].to_pylist(),
        table["row"].to_pylist(),
        table["caption"].to_pylist(),
        strict=True,
    ):
        element = source[row]
        assert element.metadata["key"] == key
        expected = run.embed("caption", element.data["caption"][None])[0]
        np.testing.assert_allclose(vector, expected, atol=1e-6)


def test_killed_and_called_again_it_is_byte_for_byte_the_same(run, data, whole, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, str(run.path), str(data), str(out)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 100
    while not list(out.glob("part-*.parquet")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    (out / ".part-00004.parquet.x.part").write_bytes(b"half of one")
    before = files(out)
    embed_shards(run, str(data), out, threads=0)
    assert files(out) == files(whole)
    assert all(files(whole)[name] == content for name, content in before.items())
    assert sorted(read_ledger(out / "quarantine.jsonl"), key=str) == sorted(
        read_ledger(whole / "quarantine.jsonl"), key=str
    )
    assert {p.name for p in out.iterdir()} == {p.name for p in whole.iterdir()}


def test_the_command_takes_shards_that_a_shell_has_listed(run, data, whole, tmp_path):
    listed = [str(data / f"data-{n}.tar") for n in (0, 3)]
    assert main(["embed", str(run.path), *listed, str(tmp_path / "out")]) == 0
    assert list(files(tmp_path / "out").values()) == [
        files(whole)[f"part-0000{n}.parquet"] for n in (0, 3)
    ]


def test_the_command_goes_on_and_refuses_another_place(run, data, whole, place, tmp_path, capfd):
    assert main(["embed", str(run.path), str(data), str(whole)]) == 0
    out, _ = capfd.readouterr()
    assert out.startswith("0 records of 0 shards embedded in")
    assert "5 were there; 2 bad records" in out
    assert main(["embed", str(run.path), str(place / "train"), str(whole)]) == 2
    assert "holds embeddings of other shards" in capfd.readouterr().err
    graph, state = nnx.split(run.model)
    doubled = nnx.merge(graph, jax.tree.map(lambda x: 2 * x if x.dtype == np.float32 else x, state))
    with pytest.raises(ValueError, match="holds embeddings of other parameters"):
        embed_shards(dataclasses.replace(run, model=doubled), str(data), whole)
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["embed", str(run.path), str(data), str(tmp_path)]) == 2
    assert "is not empty, and holds no embeddings" in capfd.readouterr().err
    assert json.loads((whole / "embedded.json").read_text())["step"] == run.step
