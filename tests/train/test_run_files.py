import dataclasses
import json

import pytest

from datarax.train import TrainConfig, load_run, train
from datarax.train.metrics_log import append_line, cut_after
from datarax.train.run_directory import prepare


def test_lines_are_json_with_rounded_floats(tmp_path):
    append_line(tmp_path / "log", {"kind": "train", "step": 1, "loss": 1 / 3})
    append_line(tmp_path / "log", {"kind": "train", "step": 2, "loss": 1e-9 / 3})
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[0] == '{"kind": "train", "step": 1, "loss": 0.333333}'
    assert json.loads(lines[1])["loss"] == 3.33333e-10


def test_cutting_drops_later_and_unfinished_lines(tmp_path):
    path = tmp_path / "log"
    lines = [json.dumps({"step": step}) + "\n" for step in (5, 10, 10, 15)]
    path.write_text("".join(lines))
    cut_after(path, 10)
    assert path.read_text() == "".join(lines[:3])
    path.write_text("".join(lines[:2]) + lines[2][:6])
    cut_after(path, 10)
    assert path.read_text() == "".join(lines[:2])
    path.write_text("".join(lines[:1]) + lines[1].rstrip("\n"))
    cut_after(path, 10)
    assert path.read_text() == lines[0]
    cut_after(path, 0)
    assert path.read_text() == ""
    cut_after(tmp_path / "none", 3)
    assert (tmp_path / "none").read_text() == ""


def test_a_directory_in_use_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match=r"not empty|not a run directory"):
            train(TrainConfig(), tmp_path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_overwriting_keeps_what_no_run_writes(tmp_path):
    prepare(tmp_path / "run", TrainConfig(), resume=False, overwrite=False)
    for name in ("metrics.jsonl", "report.html", "notes.txt"):
        (tmp_path / "run" / name).write_text("old")
    (tmp_path / "run" / "checkpoints" / "last").mkdir(parents=True)
    prepare(tmp_path / "run", TrainConfig(seed=1), resume=False, overwrite=True)
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"config.toml", "notes.txt"}
    assert "seed = 1" in (tmp_path / "run" / "config.toml").read_text()


def test_resuming_needs_the_same_configuration(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run to resume"):
        train(TrainConfig(), tmp_path / "run", resume=True)
    prepare(tmp_path / "run", TrainConfig(), resume=False, overwrite=False)
    other = dataclasses.replace(TrainConfig(), seed=3, epochs=7)
    with pytest.raises(ValueError, match=r"seed is 0 there and 3 here; epochs is \d+"):
        train(other, tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match="exclude each other"):
        train(other, tmp_path / "run", resume=True, overwrite=True)


def test_loading_what_is_not_a_trained_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_run(tmp_path / "none")
    with pytest.raises(ValueError, match=r"not a run directory: it has no config\.toml"):
        load_run(tmp_path)
    prepare(tmp_path / "run", TrainConfig(), resume=False, overwrite=False)
    with pytest.raises(FileNotFoundError, match="no checkpoint yet"):
        load_run(tmp_path / "run")


def test_a_path_that_orbax_cannot_read_is_refused_at_once(tmp_path):
    for place in (tmp_path / "a[1, 2]", tmp_path / "[x]" / "run"):
        with pytest.raises(ValueError, match="cannot be kept in a path with"):
            prepare(place, TrainConfig(), resume=False, overwrite=False)
        assert not place.exists()
