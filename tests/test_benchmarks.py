"""The benchmark that wants an accelerator, where there is none: it runs, and says what it is."""

import json
import sys
from pathlib import Path

import jax
import pytest


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="on an accelerator it is run for real")
def test_the_accelerators_benchmark_runs_on_a_cpu(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    import gpu

    out = tmp_path / "new" / "gpu.md"
    assert gpu.main(["--quick", "--out", str(out)]) == 0
    found = json.loads(out.with_suffix(".json").read_text())
    text, printed = out.read_text(), capsys.readouterr().out
    assert f"jax {jax.__version__}" in text
    assert "This was the CPU" in text
    tables = dict(found["tables"])
    assert len(tables) == 5
    for title in tables:
        assert f"### {title}\n" in text
        assert title in printed
    for limit in found["limits"]:
        assert limit["name"] in text
    times = {row["variant"]: row for row in tables["640 x 512 bfloat16"]}
    ours = {"InfoNCE", "one way", "sigmoid", "naive InfoNCE", "naive sigmoid"}
    assert ours < times.keys()
    assert all(row["ms"] > 0 and row["/ bare 4"]["median"] > 0 for row in times.values())


def check_errors(rows, *, name, below):
    errors = {row[name]: row for row in rows}
    for row in errors.values():
        for part, value in row.items():
            if part in ("loss", "a", "b", "scale"):
                assert 0 <= value < below, (row, part)
    return errors


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="on an accelerator it is run for real")
def test_the_accelerators_benchmark_measures_errors(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    import gpu

    found = gpu.Report("errors")
    gpu.accuracy(found, 64, shared=0.0)
    gpu.attention(found, 2, 8, 16, 2, 8, masked=True, rounds=1)
    (_, losses), (_, attention) = found.tables
    errors = check_errors(losses, name="variant", below=0.02)
    assert errors["InfoNCE, float32 rows"]["a"] < errors["naive InfoNCE"]["a"] / 5
    assert all(float(row["error"]) < 0.02 for row in attention if row["form"] != "bare einsums")
    assert {"datarax", "datarax, blocks", "jax.nn xla"} < {row["form"] for row in attention}
