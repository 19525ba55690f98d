"""Fields may be called like anything that training or its files have names for."""

import io
import json
import tarfile

import numpy as np
import pyarrow.parquet as parquet
import pytest
from shard_files import picture

from datarax.cli import main
from datarax.train import TrainConfig, load_run
from datarax.train.data import with_fields
from datarax.train.embed import tower_columns

# columns of `embed`; the fusion; methods of a dict; what the model writes
NAMES = ("key", "fused", "items", "loss", "image_features")


def write_tar(path, count, *, names):
    """Records of a picture and a JSON object of a text for each name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            texts = {name: f"{name} of {number}" for name in names}
            parts = {"png": picture(number), "json": json.dumps(texts).encode()}
            for suffix, content in parts.items():
                member = tarfile.TarInfo(f"{number:05}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tar(tmp_path_factory.mktemp("data") / "a.tar", 24, names=NAMES)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    sets = ("epochs=1", "batch_size=8", "held_out=4", "embedding_size=8")
    words = [word for text in sets for word in ("--set", text)]
    assert main(["train", str(data), "--out", str(out), *words]) == 0
    return load_run(out)


def test_all_are_trained_and_compared(run):
    assert set(run.config.towers) == {"image", *NAMES}
    assert {row["query"] for row in run.evaluation["retrieval"]} == {"image", *NAMES}
    text = (run.path / "metrics.jsonl").read_text(encoding="utf-8")
    assert all(0 < json.loads(line).get("loss", 1) < 99 for line in text.splitlines())


def test_all_are_embedded_beside_the_keys(run, data, tmp_path, capfd):
    assert main(["embed", str(run.path), str(data), str(tmp_path / "out")]) == 0
    assert "; key is in column key_embedding" in capfd.readouterr().out
    table = parquet.read_table(tmp_path / "out" / "part-00000.parquet")
    assert table["key"].to_pylist() == [f"{number:05}" for number in range(24)]
    columns = {"image", "key_embedding", *NAMES} - {"key"}
    assert set(table.column_names) == {"key", "shard", "row", *columns}
    source = run.source("all")
    for column in columns:
        name = "key" if column == "key_embedding" else column
        rows = np.stack([element.data[name] for element in source])
        np.testing.assert_allclose(table[column].to_pylist(), run.embed(name, rows), atol=1e-5)


def test_columns_of_towers_never_meet():
    towers = ("row", "row_embedding", "shard", "text")
    config = TrainConfig(data="a.tar", towers=towers, fused=("row", "text"))
    columns = tower_columns(config)
    assert list(columns.values()) == [*towers, "fused"]
    assert list(columns) == [
        *("row_embedding_embedding", "row_embedding", "shard_embedding", "text", "fused")
    ]


def test_a_tower_beside_the_fusion_of_its_name_is_refused_at_once(data):
    said = "fused: the fusion of image, key is called 'fused', and so is a tower"
    with pytest.raises(ValueError, match=said):
        TrainConfig(data=str(data), towers=("image", "key", "fused"), fused=("image", "key"))
    with pytest.raises(ValueError, match=said):
        with_fields(TrainConfig(data=str(data), fused=("image", "key")))
    towers = ("image", "key")
    assert with_fields(TrainConfig(data=str(data), towers=towers, fused=towers)).fused == towers
