"""Training from tars and nothing else: two fields, and three of which some lack."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest
from flax import nnx
from shard_files import write_tars

from datarax.cli import main
from datarax.pipeline import read_ledger
from datarax.sources.subset import SPLITS, SplitRows
from datarax.train import TrainConfig, load_run, train
from datarax.train.data import open_split, with_fields
from datarax.train.loop import Trainer
from datarax.train.report import write_report
from datarax.train.search import search

SETTINGS = {
    "epochs": 12,
    "batch_size": 16,
    "eval_every": 6,
    "log_every": 1,
    "warmup_steps": 4,
    "embedding_size": 16,
    "modality_dropout": 0.0,
    "error_fraction": 0.5,
}
BAD = (5, 20, 40)
TOWERS = ("image", "caption", "npy")


def two_of_three(number):
    """Each record but the first lacks one of its parts, or none."""
    return [(), ("png",), ("txt",), ("npy",)][number % 4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tars(
        tmp_path_factory.mktemp("data") / "tars", [50, 1, 37], bad=BAD, lacking=two_of_three
    )


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    return train(TrainConfig(data=str(folder), **SETTINGS), tmp_path_factory.mktemp("run") / "run")


def leaves(run):
    return jax.tree.leaves(nnx.state(run.model, nnx.Param))


def test_fields_towers_and_what_lacks_are_guessed_and_kept(run):
    assert run.config.towers == ("image", "caption", "npy")
    assert {f["missing"] for f in run.config.fields.values()} == {"mask"}
    assert load_run(run.path).config == run.config
    assert with_fields(run.config) == run.config
    pairs = {(row["query"], row["target"]): row for row in run.evaluation["retrieval"]}
    assert set(pairs) == {(a, b) for a in run.config.towers for b in run.config.towers if a != b}
    test = open_split(run.config, "test")
    both = sum({"caption", "npy"} <= set(element.data) for element in test)
    assert pairs["caption", "npy"]["records"] == both < len(test)


def test_it_learns(run):
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    row = next(r for r in run.evaluation["retrieval"] if (r["query"], r["target"]) == NPY_TO_TEXT)
    assert row["recall_at_1"] > row["chance_recall_at_1"] + 0.3


NPY_TO_TEXT = ("npy", "caption")


def test_bad_records_are_listed_once_and_harm_nothing(run, folder, tmp_path):
    faults = read_ledger(run.path / "quarantine.jsonl")
    there = {number for number in BAD if "png" not in two_of_three(number)}
    assert sorted(int(fault.key) for fault in faults) == sorted(there)
    assert {fault.field for fault in faults} == {"image"}
    again = TrainConfig(data=str(folder), ledger=str(run.path / "quarantine.jsonl"))
    source = open_split(with_fields(again), "train")
    assert len(source) == len(faults)
    with pytest.raises(ValueError, match="image"):
        source[0]


def test_the_same_again_without_threads(run, folder, tmp_path):
    config = TrainConfig(data=str(folder), **SETTINGS)
    again = train(config, tmp_path / "again", threads=0)
    assert (again.path / "metrics.jsonl").read_bytes() == (run.path / "metrics.jsonl").read_bytes()
    assert again.evaluation == run.evaluation
    assert all(map(np.array_equal, leaves(again), leaves(run)))


def test_embed_with_masks_and_search(run):
    test = run.table("test")
    vectors = run.embed("caption", test.columns["caption"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    hits = search(run, text="large red", top=5)
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    assert all(a.score >= b.score for a, b in itertools.pairwise(hits))
    with pytest.raises(ValueError, match="no text"):
        search(run, text=" ")


def test_the_report_is_written(run):
    html = write_report(run).read_text()
    assert "From caption to image" in html
    assert html.count("data:image/jpeg") > 5
    assert "Bad records" in html
    assert "By script" not in html


def test_the_command_line_takes_a_place_and_a_file(folder, tmp_path, capfd):
    file = tmp_path / "c.toml"
    file.write_text(
        'batch_size = 16\nembedding_size = 8\ntowers = ["picture", "words"]\nerror_fraction = 1.0\n'
        '[fields]\npicture = {from = "png", decode = "image", size = [8, 8], missing = "skip"}\n'
        'words = {from = "txt", decode = "text", length = 16, missing = "skip"}\n'
    )
    arguments = ["train", str(folder), "--config", str(file), "--set", "epochs=1"]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 0
    out, _ = capfd.readouterr()
    kept = len(SplitRows(88, every=10, split="train"))
    assert f"{kept} records, shuffled anew each epoch" in out
    assert "picture → words" in out
    assert "in lockstep: yes" in out
    assert main(["evaluate", str(tmp_path / "run"), "--split", "validation"]) == 0
    # the line that Ctrl-C prints: the run has the fields with their defaults written out
    again = [
        "train",
        str(folder),
        "--config",
        str(file),
        "--out",
        str(tmp_path / "run"),
        "--resume",
    ]
    assert main(again) == 0
    capfd.readouterr()
    file.write_text(file.read_text().replace("length = 16", "length = 17"))
    assert "fields: the run at" in refused(again, capfd)


def test_settings_of_the_splits(folder):
    base = {"data": str(folder), "towers": ("caption", "npy")}

    def sizes(**settings):
        config = with_fields(TrainConfig(**base, **settings))
        return [len(open_split(config, split)) for split in ("train", "validation", "test", "all")]

    assert sizes(held_out=10) == [len(SplitRows(88, every=10, split=s)) for s in SPLITS] + [88]
    assert sum(sizes(held_out=4)[:3]) == 88
    assert sizes(held_out=4)[1] > sizes(held_out=10)[1]
    assert sizes(held_out=4, eval_records=5)[1:3] == [5, 5]
    assert sizes(limit=3) == [3, 3, 3, 3]
    other = str(folder / "data-2.tar")
    assert sizes(validation=other, test=other) == [88, 37, 37, 88]


def test_limits_and_on_error_reach_the_reading(folder, tmp_path):
    settings = {**SETTINGS, "data": str(folder), "epochs": 1}
    with pytest.raises(ValueError, match="image"):
        train(TrainConfig(**settings, on_error="raise"), tmp_path / "one")
    limits = TrainConfig(**{**settings, "error_fraction": 0.1}, limits={"pixels": 10})
    fields = with_fields(dataclasses.replace(limits, limits=None)).fields
    source = open_split(dataclasses.replace(limits, fields=fields, towers=TOWERS), "train")
    with pytest.raises(ValueError, match="pixels"):
        source[0]


def test_lengths_that_fit_the_batch_change_no_number(folder, tmp_path):
    base = {**SETTINGS, "data": str(folder), "epochs": 1, "batch_size": 3, "dropout": 0.0}
    fields = with_fields(TrainConfig(**base, towers=("caption", "npy"))).fields
    losses = []
    for length in (12, [9, 10, 12]):
        chosen = {**fields, "caption": {**fields["caption"], "length": length}}
        made = train(TrainConfig(**base, fields=chosen), tmp_path / str(length).strip("[]"))
        text = (made.path / "metrics.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        losses.append([line["loss"] for line in lines if line["kind"] == "train"])
        shapes = {batch["caption"].shape[1] for batch in Trainer(made.config, tmp_path).pipeline}
        assert shapes == ({12} if length == 12 else {9, 10, 12})
    assert len(losses[0]) > 20
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def refused(arguments, capfd):
    code = main([*map(str, arguments)])
    _, said = capfd.readouterr()
    assert (code, said.count("\n")) == (2, 1), said
    return said


def test_what_cannot_be_trained_on_is_said_in_one_line(folder, tmp_path, capfd):
    (tmp_path / "none").mkdir()
    out = ("--out", tmp_path / "new")
    assert "none" in refused(("train", tmp_path / "none", *out), capfd)
    few = write_tars(tmp_path / "few", [5])
    assert "too few for a validation split" in refused(
        ("train", few, *out, "--set", "held_out=100"), capfd
    )
    said = refused(("train", folder, *out, "--set", "towers=image,captoin"), capfd)
    assert "no field 'captoin'; did you mean 'caption'?" in said
    bad = tmp_path / "bad.toml"
    bad.write_text('[fields]\nimage = {from = "png", decode = "imagee"}\n')
    assert "did you mean 'image'?" in refused(("train", folder, "--config", bad, *out), capfd)
    assert "no limit 'pixel'; did you mean 'pixels'?" in refused(
        ("train", folder, "--set", "limits={pixel=3}", *out), capfd
    )
    assert "two" in refused(("train", bad, "--config", bad, *out), capfd)
    assert not (tmp_path / "new").exists()


def test_too_many_bad_records_stop_it_with_a_summary(tmp_path, capfd):
    folder = write_tars(tmp_path / "tars", [64], bad=range(64, 128))
    bad = write_tars(tmp_path / "bad", [64], bad=range(64))
    run = tmp_path / "new"
    settings = ("batch_size=32", "error_run=20", f"validation={folder}", f"test={folder}")
    fields = tmp_path / "c.toml"
    fields.write_text(
        '[fields]\nimage = {from = "png", decode = "image", size = [8, 8]}\n'
        'text = {from = "txt", decode = "text", length = 16}\n'
    )
    sets = [word for setting in settings for word in ("--set", setting)]
    said = refused(("train", bad, "--out", run, "--config", fields, *sets), capfd)
    assert "20 records in a row are bad; 20 bad of 20 read so far" in said
    assert "or set other error_caps" in said
    assert (run / "quarantine.jsonl").read_text().count("\n") >= 20


def test_the_issue_s_own_line_and_what_a_shell_has_listed(tmp_path, monkeypatch, capfd):
    folder = write_tars(tmp_path / "tars", [20, 20])
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / "c.toml", more="")
    sets = ["--set", "epochs=1", "--set", "batch_size=8", "--set", "held_out=4"]
    line = ["train", *map(str, sorted(folder.glob("*.tar"))), "--config", "c.toml"]
    assert main([*line, *sets]) == 0
    assert "run: runs/tars\n" in capfd.readouterr().out
    assert main([*line, "--resume"]) == 0
    run = load_run("runs/tars")
    assert run.config.data == tuple(str(folder / f"data-{n}.tar") for n in range(2))
    assert len(run.source("all")) == 40
    other = with_fields(dataclasses.replace(run.config, data=str(folder)))
    assert [e.metadata for e in open_split(other, "train")] == [
        e.metadata for e in run.source("train")
    ]
    assert "tars/data-0.tar, " in (run.path / "report.html").read_text()


def write_config(path, text="txt", image="png", missing="error", more=""):
    path.write_text(
        f'[fields]\nimage = {{from = "{image}", decode = "image", size = [8, 8]}}\n'
        f'text = {{from = "{text}", decode = "text", length = 16, missing = "{missing}"}}\n{more}'
    )
    return path


def test_a_wrong_part_or_limit_is_told_with_its_reason(tmp_path, capfd):
    folder = write_tars(tmp_path / "tars", [24])
    file = tmp_path / "c.toml"
    arguments = ("train", folder, "--config", file, "--out", tmp_path / "new")
    arguments += ("--set", "held_out=4", "--set", "batch_size=8")
    write_config(file, text="text")
    said = refused(arguments, capfd)
    assert "no record to validate on has two of ['image', 'text']; 6 bad records (text 6)" in said
    assert "text: the record lacks text; it has ['npy', 'png', 'txt']; " in said
    write_config(file, more="[limits]\npixels = 100\n")
    assert "16 x 16 pixels, at most 100" in refused(arguments, capfd)
    write_config(file, text="text", missing="mask")
    said = refused(arguments, capfd)
    assert ": 6 have image, 0 have text; none is bad: does `from` in [fields] name what" in said
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", ["bad", "lacking"])
def test_an_epoch_of_which_nothing_can_be_learned_ends_the_run(kind, tmp_path, capfd):
    bad, lacking = (range(24), None) if kind == "bad" else ((), lambda number: ("txt",))
    folder = write_tars(tmp_path / "tars", [24], bad=bad, lacking=lacking)
    good = write_tars(tmp_path / "good", [8])
    file = write_config(tmp_path / "c.toml", missing="mask")
    run = tmp_path / "run"
    settings = ("epochs=3", "batch_size=8", f"validation={good}", f"test={good}", "save_every=2")
    sets = [word for setting in settings for word in ("--set", setting)]
    arguments = (
        "train",
        folder,
        "--config",
        file,
        "--out",
        run,
        *sets,
        "--set",
        "error_fraction=1",
    )
    for again in ((), ("--resume",)):
        assert main([*map(str, (*arguments, *again))]) == 2
        said = capfd.readouterr().err.splitlines()[-1]
        assert "no record to train on has two of ['image', 'text']; " in said
        reason = "24 bad records (image 24), listed in" if kind == "bad" else "none is bad"
        assert reason in said
        lines = (run / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines if json.loads(line)["step"] > 3] == []
    assert not (run / "evaluation.json").exists()


def test_nothing_to_show_is_told_with_its_reason(run, tmp_path):
    empty = write_tars(tmp_path / "tars", [4], lacking=lambda number: ("png",))
    config = dataclasses.replace(run.config, towers=("image", "caption"), test=str(empty))
    said = r"no record to show has two of \['image', 'caption'\]: 0 have image, 4 have caption"
    with pytest.raises(ValueError, match=said):
        write_report(dataclasses.replace(run, config=config))
