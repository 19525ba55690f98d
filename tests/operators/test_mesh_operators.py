"""Every operator gives on eight devices what it gives on one: Auto axes, and Explicit ones."""

import os
import pathlib
import subprocess
import sys

import pytest
from operator_table import TABLE

SCRIPT = pathlib.Path(__file__).with_name("mesh_operators.py")
SAMPLE = ("fusion gated", "vicreg", "random_crop", "sequential")


def run(names):
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *names],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "done\n", done.stdout + done.stderr


def test_some_operators_over_a_mesh():
    run(SAMPLE)


@pytest.mark.slow
def test_all_operators_over_a_mesh():
    run(TABLE)
