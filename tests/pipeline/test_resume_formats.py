"""Exact resume over real files of every format, alone and mixed, on threads and in processes."""

import importlib.util
import sys
from pathlib import Path

import pytest
from pipeline_sources import content, pipeline, rests_in_a_fresh_process
from test_resume import check_resume_at_every_step

_PATH = Path(__file__).parents[1] / "sources" / "format_files.py"
_spec = importlib.util.spec_from_file_location("format_files", _PATH)
format_files = sys.modules.setdefault("format_files", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(format_files)

FORMATS = list(format_files.FORMATS)


def question(kind, folder, *, mixed):
    """Two shards of a format, one of which has a record whose text is none."""
    paths = []
    for name, count, start in (("one", 9, 0), ("two", 5, 9)):
        (folder / name).mkdir()
        paths.append(str(format_files.write(kind, folder / name, count, start)))
    fields = {**format_files.FIELDS, "text": {"from": "txt", "decode": "text", "length": 24}}
    fields["number"] = {"from": ["n", "json.n"], "decode": "number", "dtype": "uint8"}
    return {"paths": paths, "fields": fields, "mixed": mixed}


@pytest.mark.parametrize("threads", [2, pytest.param(0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mixed", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", FORMATS)
def test_resume_at_every_step(kind, mixed, threads, tmp_path):
    asked = question(kind, tmp_path, mixed=mixed)
    check_resume_at_every_step(lambda: pipeline(asked, threads=threads), epochs=1)


def test_three_steps_of_every_format_in_a_fresh_process(tmp_path):
    questions, expected = [], []
    for kind in FORMATS:
        (tmp_path / kind).mkdir()
        asked = question(kind, tmp_path / kind, mixed=kind in ("tar", "parquet"))
        with pipeline(asked) as whole:
            next(whole)
            questions.append((asked, whole.state(), 3))
            expected.append([content(next(whole)) for _ in range(3)])
    assert rests_in_a_fresh_process(questions, threads=2) == expected


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", FORMATS)
def test_resume_in_processes(kind, workers, tmp_path):
    asked = question(kind, tmp_path, mixed=True)
    with pipeline(asked) as whole:
        next(whole)
        state = whole.state()
        expected = [content(next(whole)) for _ in range(len(whole))]
    with pipeline(asked, workers=workers) as batches:
        batches.restore(state)
        assert [content(next(batches)) for _ in range(len(batches))] == expected
