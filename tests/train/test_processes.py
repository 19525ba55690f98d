"""Real processes on this machine, each with its part of the batch: the numbers of one process."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from process_worker import step

WORKER = Path(__file__).with_name("process_worker.py")
SECONDS = 120


def run_processes(arguments, *, seconds=SECONDS):
    """Run one process for each list of arguments, until all end or one fails; none is left."""
    log = subprocess.PIPE
    one_device = {**os.environ, "JAX_PLATFORMS": "cpu"}
    children = [
        subprocess.Popen([sys.executable, *map(str, x)], env=one_device, stderr=log, text=True)
        for x in arguments
    ]
    limit = time.monotonic() + seconds
    try:
        while any(x.poll() is None for x in children) and time.monotonic() < limit:
            if any(x.poll() for x in children):
                break
            time.sleep(0.05)
        return [x.poll() for x in children]
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
            _, errors = child.communicate(timeout=10)
            if child.returncode:
                print(errors[-2000:], file=sys.stderr)


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


@pytest.mark.parametrize(
    ("count", "methods"),
    [
        (2, ["info_nce"]),
        pytest.param(2, ["sigmoid"], marks=pytest.mark.slow),
        pytest.param(4, ["info_nce", "sigmoid"], marks=pytest.mark.slow),
    ],
)
def test_processes_find_what_one_finds(count, methods, tmp_path):
    out, port = tmp_path / "found.json", free_port()
    codes = run_processes([(WORKER, rank, count, port, out, *methods) for rank in range(count)])
    assert codes == [0] * count
    found = json.loads(out.read_text())
    for method in methods:
        for value, alone in zip(found[method], step(method, jnp.asarray), strict=True):
            # float32 sums over the batch, in another order
            np.testing.assert_allclose(value, alone, rtol=0, atol=3e-6 * np.max(np.abs(alone)))


def test_a_child_that_dies_takes_the_others_along():
    start = time.monotonic()
    codes = run_processes([("-c", "raise SystemExit(3)"), ("-c", "import time; time.sleep(60)")])
    assert codes[0] == 3
    assert codes[1] is None  # it was alive, and was killed
    assert time.monotonic() - start < 30
