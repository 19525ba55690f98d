"""The commands on a small real run, as a user types them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datarax.cli import main
from datarax.cli.run_directory import default_out
from datarax.sources.glyph_drawing import draw_all

SMALL = [
    *("--set", "limit=24", "--set", "batch_size=8", "--set", "epochs=1", "--set", "log_every=1"),
    *("--set", "embedding_size=8", "--set", "towers=image,name", "--seed", "3"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "a run"
    assert main(["train", "glyphs", "--out", str(out), *SMALL]) == 0
    return out


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def files(path):
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and "checkpoints" not in file.parts
    }


def test_training_leaves_a_run(trained):
    names = {"config.toml", "metrics.jsonl", "timings.jsonl", "evaluation.json", "report.html"}
    assert names | {"checkpoints"} == {path.name for path in trained.iterdir()}
    assert "seed = 3\n" in (trained / "config.toml").read_text()


def test_training_prints_the_table_and_where_the_report_is(tmp_path, capsys):
    out = tmp_path / "new" / "run"
    assert main(["train", "glyphs", "--out", str(out), *SMALL]) == 0
    printed = capsys.readouterr()
    head, *rows, report = printed.out.splitlines()
    assert " ".join(head.split()) == "test split, 24 records, seed 3 R@1 R@5 R@10 median rank MRR"
    assert [row.split("  ")[0] for row in rows if row[0] != " "] == ["image → name", "name → image"]
    baselines = ["tuned ridge", "ridge regression", "chance"]
    assert [row.split("  ")[1] for row in rows[1:4]] == baselines
    assert len({row.rindex(".") for row in (rows[0], rows[4])}) == 1
    assert report == f"report: {out}/report.html"
    assert printed.err == ""


def test_without_out_the_run_goes_where_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "glyphs", *SMALL]) == 0
    first, *_, report = capsys.readouterr().out.splitlines()
    assert first == "run: runs/glyphs"
    assert report == "report: runs/glyphs/report.html"
    before = files(tmp_path)
    assert main(["train", "glyphs", *SMALL]) == 2
    assert "runs/glyphs is not empty: give --resume, --ov" in capsys.readouterr().err
    assert main(["train", "glyphs", "--resume"]) == 0
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("places", "name"),
    [
        (["data/cats"], "cats"),
        (["data/cats/"], "cats"),
        (["data/cats/*.tar"], "cats"),
        (["data/cats-{000..012}.tar.gz"], "cats"),
        (["s3://data/cats/{000..012}.tar"], "cats"),
        (["cats.toml"], "cats"),
        (["data/[my] cats.tar"], "data"),
        (["data/my cats.tar"], "my-cats"),
        (["cats/0.tar", "cats/1.tar"], "cats"),
        (["a/cats.tar", "b/dogs.tar"], "cats"),
        (["."], "here"),
        (["*.tar"], "here"),
        (["0.tar", "1.tar"], "here"),
    ],
)
def test_where_a_run_goes_without_out(places, name, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert default_out(places) == Path("runs", name)


def test_evaluate_prints_what_training_wrote(run, capsys):
    written = json.loads((run / "evaluation.json").read_text())
    before = files(run)
    assert main(["evaluate", str(run)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("test split, 24 records, seed 3")
    for row in written["retrieval"]:
        assert f"{row['recall_at_5']:.3f}" in out
    assert main(["evaluate", str(run), "--split", "validation"]) == 0
    assert capsys.readouterr().out.startswith("validation split")
    assert files(run) == before


def test_search_by_text(run, capsys):
    assert main(["search", str(run), "digit two", "--top", "3"]) == 0
    *rows, picture = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    scores = [float(row.split()[1]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert all(row.split()[2].startswith("U+") for row in rows)
    assert picture == f"picture: {run}/search.png"
    assert (run / "search.png").read_bytes().startswith(b"\x89PNG")


def test_search_by_picture(run, tmp_path, capsys):
    query, answer = tmp_path / "query.png", tmp_path / "answer.png"
    Image.fromarray(255 - np.kron(draw_all("image", [0x32])[0], np.ones((6, 6), np.uint8))).save(
        query
    )
    arguments = ["search", str(run), "--image", str(query), "--picture", str(answer)]
    assert main(arguments) == 0
    assert len(capsys.readouterr().out.splitlines()) == 11
    assert answer.read_bytes().startswith(b"\x89PNG")
    assert not (run / "search.png").exists()


def test_a_picture_that_cannot_be_written(run, tmp_path, capsys):
    before = files(tmp_path)
    assert main(["search", str(run), "two", "--picture", str(tmp_path / "no" / "a.png")]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "no/a.png: no such file or directory" in printed
    assert files(tmp_path) == before


def test_report_again(run, capsys):
    before = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"report: {run}/report.html\n"
    assert (run / "report.html").read_bytes() == before


def test_a_run_in_the_way_is_kept_resumed_or_overwritten(run, capsys):
    train = ["train", "glyphs", "--out", str(run), *SMALL]
    before = files(run)
    assert main(train) == 2
    assert "is not empty: give --resume, --overwrite or another --out" in capsys.readouterr().err
    assert files(run) == before
    assert main(["train", "glyphs", "--out", str(run), "--resume"]) == 0
    assert files(run) == before
    (run / "metrics.jsonl").write_text("old")
    assert main([*train, "--overwrite"]) == 0
    assert files(run)["metrics.jsonl"] == before["metrics.jsonl"]


def test_a_bug_is_told_apart(run, capsys):
    (run / "evaluation.json").write_text('{"split": "test"}')
    assert main(["report", str(run)]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("datarax: this is a bug in datarax: KeyError")
    assert printed.count("\n") == 1


def test_a_full_disk_keeps_the_old_report(run):
    before = files(run)
    # The limit is set in the child: a `preexec_fn` would fork a process that has threads.
    limited = (
        "import resource, sys\n"
        "from datarax.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    # JAX would warn of the programs that it cannot keep.
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", limited, "report", str(run)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "report.html: file too large; raise the limit" in done.stderr
    assert files(run) == before


def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path, capsys):
    out = tmp_path / "run"

    def interrupt():
        while not (out / "timings.jsonl").is_file():  # the first step was taken
            if over.wait(0.02):
                return
        os.kill(os.getpid(), signal.SIGINT)

    over = threading.Event()
    watch = threading.Thread(target=interrupt)
    watch.start()
    try:
        longer = ["epochs=400" if word == "epochs=1" else word for word in SMALL]
        assert main(["train", "glyphs", "--out", str(out), *longer]) == 130
    finally:
        over.set()
        watch.join()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"`datarax train glyphs --out {out} --resume`" in said
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert os.listdir(out / "checkpoints" / "last") == [str(steps[-1])]
