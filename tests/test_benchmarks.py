"""The benchmark that wants an accelerator, where there is none: it runs, and says what it is."""

import sys
from pathlib import Path

import jax
import pytest


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="on an accelerator it is run for real")
def test_the_accelerators_benchmark_runs_on_a_cpu(monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    import gpu

    found = gpu.report(quick=True)
    ((title, rows),) = found.tables
    assert title == "640 x 512 bfloat16"
    ours = {"InfoNCE", "one way", "sigmoid", "naive InfoNCE", "naive sigmoid"}
    assert ours < {row["variant"] for row in rows}
    assert all(row["ms"] > 0 for row in rows)
    assert any("This was the CPU" in note for note in found.notes)
    assert title in capsys.readouterr().out
