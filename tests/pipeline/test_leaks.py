"""Nothing is left: neither memory over epochs, nor threads, processes or files after the end."""

import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest
from pipeline_sources import pipeline

EPOCHS = """
import gc, sys
sys.path.insert(0, sys.argv[1])
from pipeline_sources import of_files
from datarax.pipeline import Pipeline
import json
source = of_files(json.loads(sys.argv[2]), json.loads(sys.argv[3]), mixed=True)
def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])
sizes = []
with Pipeline(source, batch_size=16, seed=0, threads=2) as pipeline:
    for epoch in range(int(sys.argv[4])):
        for batch in pipeline:
            pass
        sizes.append(resident())
print(json.dumps(sizes))
"""
CRASH = """
import sys
sys.path.insert(0, sys.argv[1])
from pipeline_sources import pipeline
batches = pipeline("mixture", threads=2, workers=int(sys.argv[2]))
next(batches)
raise RuntimeError("crash")
"""

KILLED = """
import multiprocessing, sys, time
sys.path.insert(0, sys.argv[1])
from pipeline_sources import pipeline
batches = pipeline("mixture", threads=1, workers=1)
next(batches)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(200)
"""


def run(code, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        **options,
    )


def write_tar(path, count):
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            content = json.dumps({"n": number, "words": "x" * 200}).encode()
            member = tarfile.TarInfo(f"{number}.json")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return str(path)


@pytest.mark.parametrize("epochs", [12, pytest.param(50, marks=pytest.mark.slow)])
def test_memory_is_flat_over_epochs(tmp_path, epochs):
    paths = [write_tar(tmp_path / f"{place}.tar", 150) for place in range(2)]
    fields = {
        "n": {"from": "json.n", "decode": "number"},
        "words": {"from": "json.words", "decode": "text", "length": 256},
    }
    ended = run(EPOCHS, json.dumps(paths), json.dumps(fields), epochs)
    assert ended.returncode == 0, ended.stderr
    sizes = json.loads(ended.stdout)
    warm = sizes[epochs // 5]
    assert max(sizes[epochs // 5 :]) <= 1.05 * warm, sizes


@pytest.mark.xdist_group("shared memory")  # as in test_workers.py
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_crash_leaves_nothing(tmp_path, workers):
    shared = segments()
    ended = run(CRASH, workers, env=os.environ | {"TMPDIR": str(tmp_path)})
    assert ended.returncode == 1
    assert "RuntimeError: crash" in ended.stderr
    assert list(tmp_path.iterdir()) == []
    new = segments() - shared
    assert_comes_true(lambda: not new & segments())


def segments():
    """Of shared memory; those of tests that run beside this one come and go."""
    return set(Path("/dev/shm").iterdir())


def assert_comes_true(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_running(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.xdist_group("shared memory")
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_workers_end_with_a_process_that_is_killed():
    shared = segments()
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        workers = process.stdout.readline().split()
        new = segments() - shared
        process.kill()
    assert workers
    assert_comes_true(lambda: not any(map(is_running, workers)))
    assert_comes_true(lambda: not new & segments())


def test_threads_end_with_the_pipeline():
    before = threading.active_count()
    for _ in range(3):
        with pipeline("mixture", threads=3) as batches:
            next(batches)
            assert threading.active_count() > before
        assert threading.active_count() == before
