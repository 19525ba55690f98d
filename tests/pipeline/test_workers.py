"""Reading in Grain's processes: what threads give, whatever happens to a process."""

import collections
import itertools
import json
import os
import secrets
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from pipeline_sources import Marked, content, pipeline

from datarax.pipeline.workers import SharedNames
from datarax.sources.record import RecordError

# One after another: each looks at what is left in the shared memory of the machine.
pytestmark = pytest.mark.xdist_group("shared memory")


def children():
    """Process ids of this process's children, but for Python's own tracker of shared memory."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            tracker = b"resource_tracker" in (entry / "cmdline").read_bytes()
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError, IndexError):
            continue  # no process, or gone
        if not tracker and int(fields[1]) == os.getpid() and fields[0] != "Z":
            found.append(int(entry.name))
    return set(found)


def wait_until(holds, seconds=20):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_processes_give_what_threads_give_and_resume_exactly():
    before, shared = children(), set(Path("/dev/shm").iterdir())
    with pipeline("mixture") as whole, pipeline("mixture", workers=2) as batches:
        total = 2 * len(whole)
        expected = [content(next(whole)) for _ in range(total)]
        for step in range(total - 2):
            assert content(next(batches)) == expected[step]
        state = json.loads(json.dumps(batches.state()))
        batches.restore(state)
        assert [content(next(batches)) for _ in range(2)] == expected[-2:]
        assert set(batches.ledger.faults) == set(whole.ledger.faults) != set()
        assert children() > before
    wait_until(lambda: children() <= before)
    assert set(Path("/dev/shm").iterdir()) <= shared


@pytest.mark.slow
def test_a_worker_that_is_killed_stops_it_and_the_step_is_still_to_be_taken():
    with pipeline("marked") as whole, pipeline("marked", workers=1, ahead=1) as batches:
        expected = [content(next(whole)) for _ in range(8)]
        before = children()
        got = [content(next(batches))]
        for process in children() - before:
            os.kill(process, signal.SIGKILL)

        def go_on():
            while len(got) < 7:
                got.append(content(next(batches)))

        with pytest.raises(Exception, match=r"exit code|terminated|worker"):
            go_on()
        got += [content(next(batches)) for _ in range(8 - len(got))]
        assert got == expected


@pytest.fixture
def marked_memory(monkeypatch):
    """What steps are handed on in, by its names: of this test alone, as others run beside it."""
    mark = f"{os.getpid():x}"
    monkeypatch.setattr(secrets, "token_hex", lambda _: mark)

    def found():
        return {path for path in Path("/dev/shm").iterdir() if path.name.startswith(f"dx{mark}-")}

    return found


def test_what_a_killed_worker_had_in_shared_memory_goes_with_the_error(marked_memory):
    before, shared = children(), marked_memory()
    with pipeline("marked", workers=2, ahead=2) as batches:
        next(batches)
        wait_until(lambda: marked_memory() > shared)  # read ahead
        for process in children() - before:
            os.kill(process, signal.SIGKILL)
        with pytest.raises(Exception, match=r"exit code|terminated|worker"):
            collections.deque(map(next, itertools.repeat(batches, 20)))
        wait_until(lambda: marked_memory() <= shared)


def test_what_a_killed_worker_had_in_shared_memory_goes_on_close(marked_memory):
    before, shared = children(), marked_memory()
    batches = pipeline("marked", workers=1, ahead=2)
    next(batches)
    wait_until(lambda: marked_memory() > shared)  # read ahead
    for process in children() - before:
        os.kill(process, signal.SIGKILL)
    batches.close()
    batches.close()
    wait_until(lambda: marked_memory() <= shared)


def test_memory_of_steps_is_found_by_its_names(marked_memory):
    names = SharedNames(secrets.token_hex(4))
    number = 10**12
    arrays = {"data": [np.arange(6.0).reshape(2, 3)], "presence": [np.zeros(0, bool)]}
    step = {"number": number, "records": np.arange(2), "valid": np.ones(2, bool), "about": 1}
    made = names({**step, **arrays})
    assert made["data"][0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (made["records"].tolist(), made["number"], made["about"]) == ([0, 1], number, 1)
    there = {path.name for path in marked_memory()}
    assert len(there) == 3
    assert max(map(len, there)) < 30
    empty = Path("/dev/shm", names.name(number + 1, 0))
    empty.touch()  # as of one that was killed at once
    names.remove(range(number + 1, number + 3), arrays=4)
    assert {path.name for path in marked_memory()} == there
    names.remove(range(number, number + 1), arrays=4)
    assert not marked_memory()


def test_errors_of_a_worker_are_raised_here():
    with (
        pipeline(Marked(9, bad=[4]), workers=1, on_error="raise", shuffle=False) as batches,
    ):
        next(batches)
        with pytest.raises(RecordError, match="broken"):
            next(batches)


@pytest.mark.parametrize("workers", [-1, -5])
def test_refusals(workers):
    with pytest.raises(ValueError, match=f"workers >= 0 and ahead >= 1, got 0, {workers} and 2"):
        pipeline("memory", workers=workers)
