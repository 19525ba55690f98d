"""Section by section: one line on stderr, exit code 2, nothing written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from datarax.cli import main
from datarax.train.config import TrainConfig, dump_config

CONFIG = dump_config(TrainConfig(seed=7))


def datarax(*arguments, cwd):
    """The command as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "datarax", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def place(tmp_path):
    """A directory with a run, and things that are none."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text(CONFIG)
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "config.toml").write_text(CONFIG)
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.toml").write_text("title = 'something else'")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "runs" / "run").mkdir(parents=True)
    (tmp_path / "runs" / "run" / "config.toml").write_text(CONFIG)
    (tmp_path / "run.toml").write_text("seed = 7\n")
    (tmp_path / "misspelt.toml").write_text("epoch = 3\n")
    (tmp_path / "typed.toml").write_text('epochs = "3"\n')
    (tmp_path / "ranged.toml").write_text("modality_dropout = 1.5\n")
    (tmp_path / "broken.toml").write_text("seed = 1\nepochs == 3\n")
    return tmp_path


def content(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
    }


TRAIN = ("train", "glyphs", "--out", "new")
BAD = {
    # the command line
    "command": (("trian", "glyphs"), "no such command 'trian': did you mean 'train'?"),
    "far command": (("dance",), "no such command 'dance': choose from convert, embed, evaluate"),
    "quoted command": (("it's",), """no such command "it's": choose from convert"""),
    "option": (("train", "glyphs", "--ouy", "x"), "no such option '--ouy': did you mean '--out'?"),
    "global option": (("--versoin",), "did you mean '--version'?"),
    "no argument": (("train", "--out", "new"), "missing argument 'DATA_OR_TOML'"),
    "no value": (("train", "glyphs", "--out"), "option '--out' requires an argument"),
    "extra": (("report", "run", "run"), "unexpected extra argument"),
    "top": (("search", "run", "a", "--top", "0"), "invalid value for '--top'"),
    "both flags": ((*TRAIN, "--resume", "--overwrite"), "--resume or --overwrite, not both"),
    # settings
    "unknown key": (
        ("train", "misspelt.toml", "--out", "new"),
        "misspelt.toml: unknown key 'epoch': did you mean 'epochs'?",
    ),
    "wrong type": (
        ("train", "typed.toml", "--out", "new"),
        "typed.toml: epochs: expected a whole number at least 1, got the text '3'",
    ),
    "range": (
        ("train", "ranged.toml", "--out", "new"),
        "ranged.toml: modality_dropout: expected a number at least 0 and below 1, got 1.5",
    ),
    "malformed": (("train", "broken.toml", "--out", "new"), "broken.toml: not valid TOML"),
    "malformed line": (("train", "broken.toml", "--out", "new"), "line 2"),
    "set key": ((*TRAIN, "--set", "epoch=3"), "unknown key 'epoch': did you mean 'epochs'?"),
    "set type": ((*TRAIN, "--set", "epochs=many"), "expected a whole number at least 1, got the"),
    "set form": ((*TRAIN, "--set", "epochs"), "expected key=value, got 'epochs'"),
    "seed": ((*TRAIN, "--seed", "x"), "seed: expected a whole number at least 0"),
    "negative seed": ((*TRAIN, "--seed", "-1"), "seed: expected a whole number at least 0"),
    "seed twice": ((*TRAIN, "--seed", "1", "--set", "seed=2"), "seed is set twice"),
    # files and data
    "data set": (("train", "glyhps", "--out", "new"), "did you mean 'glyphs'?"),
    "missing file": (
        ("train", "mispelt.toml", "--out", "new"),
        "mispelt.toml: no such file or directory; did you mean 'misspelt.toml'?",
    ),
    "no records": (("train", "empty", "--out", "new"), "there are no records in empty"),
    "no shards": (("train", "none-*.tar", "--out", "new"), "none-*.tar finds no file"),
    "two files": (
        ("train", "ranged.toml", "--out", "new", "--config", "typed.toml"),
        "give one TOML",
    ),
    "no settings": (
        ("train", "empty", "--out", "new", "--config", "notes.txt"),
        "expected a .toml",
    ),
    "embed glyphs": (("embed", "run", "empty", "new"), "glyphs, which has no shards"),
    "two data": (("train", "a.tar", "glyphs", "--out", "new"), "glyphs: one of several places"),
    "no --config": (("train", "a.tar", "typed.toml", "--out", "new"), "typed.toml: one of several"),
    "twice": (("train", "a.tar", "a.tar", "--out", "new"), "expected different shards"),
    "text as data": (("train", "notes.txt", "--out", "new"), "expected a data set (glyphs)"),
    # where a run goes
    "in use": (("train", "glyphs", "--out", "run"), "run is not empty: give --resume, --overwrite"),
    "default in use": (("train", "run.toml"), "runs/run is not empty: give --resume, --overwrite"),
    "overwrite no run": (
        ("train", "glyphs", "--out", ".", "--overwrite"),
        "is not a run directory: it has no config.toml",
    ),
    "overwrite more than a run": (
        ("train", "glyphs", "--out", "thesis", "--overwrite"),
        "thesis holds what no run writes (chapter.txt)",
    ),
    "overwrite another's": (
        ("train", "glyphs", "--out", "other", "--overwrite"),
        "config.toml: unknown key 'title'",
    ),
    "resume nothing": (("train", "glyphs", "--out", "new", "--resume"), "no such file"),
    "resume no run": (("train", "glyphs", "--out", "empty", "--resume"), "not a run directory"),
    "resume another": (
        ("train", "glyphs", "--out", "run", "--resume", "--seed", "8"),
        "seed: the run at run has 7, not 8",
    ),
    "out is a file": (("train", "glyphs", "--out", "notes.txt"), "notes.txt: not a directory"),
    "out in a file": (
        ("train", "glyphs", "--out", "notes.txt/run"),
        "a part of this path is a file",
    ),
    # runs and queries
    "evaluate nothing": (
        ("evaluate", "rum"),
        "rum: no such file or directory; did you mean 'run'?",
    ),
    "evaluate no run": (("evaluate", "empty"), "empty is not a run directory"),
    "evaluate split": (("evaluate", "run", "--split", "tset"), "did you mean 'test'?"),
    "report no run": (("report", "empty"), "empty is not a run directory"),
    "search no run": (("search", "empty", "alpha"), "empty is not a run directory"),
    "search file": (("search", "notes.txt", "alpha"), "notes.txt is not a run directory"),
    "no query": (("search", "run"), "give either TEXT or --image FILE, and not both"),
    "two queries": (("search", "run", "a", "--image", "notes.txt"), "and not both"),
    "empty query": (("search", "run", " "), "got no text"),
    "no picture": (("search", "run", "--image", "notes.txt"), "notes.txt is not a PNG or JPEG"),
    "missing picture": (("search", "run", "--image", "note.txt"), "did you mean 'notes.txt'?"),
}


@pytest.mark.parametrize("kind", list(BAD))
def test_one_line_and_nothing_written(place, kind, monkeypatch, capfd):
    arguments, said = BAD[kind]
    before = content(place)
    monkeypatch.chdir(place)
    code = main(arguments)
    written, complained = capfd.readouterr()
    assert (code, written) == (2, ""), complained
    assert complained.count("\n") == 1
    assert complained.startswith("datarax: ")
    assert said in complained
    assert content(place) == before


@pytest.mark.parametrize("kind", ["command", "seed", "in use", "no picture"])
def test_one_line_from_a_process_of_its_own(place, kind):
    arguments, said = BAD[kind]
    done = datarax(*arguments, cwd=place)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


@pytest.mark.parametrize("where", ["before", "after"])
def test_debug_adds_the_traceback(place, where):
    arguments = ("train", "misspelt.toml", "--out", "new")
    arguments = ("--debug", *arguments) if where == "before" else (*arguments, "--debug")
    done = datarax(*arguments, cwd=place)
    assert done.returncode == 2
    assert done.stderr.startswith("Traceback")
    assert done.stderr.splitlines()[-1].startswith("datarax: misspelt.toml: unknown key")


def test_debug_after_two_dashes_is_an_argument(place):
    done = datarax("report", "--", "--debug", cwd=place)
    assert done.returncode == 2
    assert done.stderr == "datarax: --debug: no such file or directory; check the path\n"


def test_a_line_break_in_what_was_typed_stays_one_line(place):
    done = datarax("train", "glyphs", "--out", "new", "--set", "a\nb\x1b[31m=1", cwd=place)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help(arguments, tmp_path):
    done = datarax(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("train", "evaluate", "search", "report", "--version", "--debug"):
        assert command in done.stdout


def test_version(tmp_path):
    done = datarax("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "datarax 0.1.0\n")


@pytest.mark.parametrize("arguments", [["--help"], ["trian"], ["train", "glyphs", "--ot", "x"]])
def test_help_and_typos_import_nothing_heavy(arguments, tmp_path):
    code = (
        "import sys, json, contextlib, io, datarax\n"
        "before = set(sys.modules)\n"
        "from datarax.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        f"    main({arguments!r})\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    added = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert "typer" in added
    # Whatever `import datarax` itself takes is not the command's to save.
    heavy = {"jax", "flax", "optax", "numpy", "matplotlib", "PIL", "jinja2", "orbax", "grain"}
    assert heavy & added == set()


def test_the_entry_point_is_main():
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"datarax": "datarax.cli:main"}
