"""Reading in Grain's processes: what threads give, whatever happens to a process."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from pipeline_sources import Marked, content, pipeline

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
