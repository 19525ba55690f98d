import gc
import itertools
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from pipeline_sources import Marked, pipeline

from datarax.pipeline.prefetch import Job, Prefetch


def reading_threads():
    return [t for t in threading.enumerate() if t.name.startswith("datarax-read")]


def gone(seconds=5.0):
    end = time.monotonic() + seconds
    while reading_threads() and time.monotonic() < end:
        time.sleep(0.01)
    return not reading_threads()


def jobs(count, *, log=None, parts=3):
    for number in itertools.count() if count is None else range(count):
        if log is not None:
            log.append(number)
        yield job(number, parts)


def job(number, parts):
    done = []

    def part(k):
        time.sleep(((number * 7 + k * 3) % 5) / 2000)
        done.append(k)

    return Job([lambda k=k: part(k) for k in range(parts)], lambda: (number, sorted(done)))


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_results_come_in_order_and_whole(threads):
    with Prefetch(jobs(30), threads=threads, ahead=5) as results:
        assert list(results) == [(n, [0, 1, 2]) for n in range(30)]
    assert gone()


@pytest.mark.parametrize(("threads", "ahead", "most"), [(0, 5, 1), (2, 3, 3)])
def test_no_more_jobs_are_begun_than_there_is_room_for(threads, ahead, most):
    log = []
    with Prefetch(jobs(None, log=log), threads=threads, ahead=ahead) as results:
        for number in range(10):
            next(results)
            time.sleep(0.005)
            assert len(log) <= number + 1 + most


def test_parts_run_at_once():
    both = threading.Barrier(2, timeout=5)
    with Prefetch(iter([Job([both.wait, both.wait], lambda: 1)]), threads=2, ahead=1) as results:
        assert next(results) == 1


@pytest.mark.parametrize("threads", [0, 3])
def test_an_error_comes_where_its_result_would(threads):
    def fail(name):
        raise OSError(name)

    wrong = Job([lambda: None, lambda: fail("second"), lambda: fail("third")], lambda: 0)
    unfinished = Job([lambda: None], lambda: fail("finish"))
    with Prefetch(iter([job(0, 1), wrong, unfinished]), threads=threads, ahead=3) as results:
        assert next(results) == (0, [0])
        with pytest.raises(OSError, match="second"):
            next(results)
    with (
        Prefetch(iter([unfinished]), threads=threads, ahead=3) as results,
        pytest.raises(OSError, match="finish"),
    ):
        next(results)
    assert gone()


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_of_the_jobs_themselves_comes_after_their_results(threads):
    def broken():
        yield from jobs(3)
        raise OSError("no more")

    with Prefetch(broken(), threads=threads, ahead=2) as results:
        assert [next(results)[0] for _ in range(3)] == [0, 1, 2]
        for _ in range(2):  # nobody gets past it
            with pytest.raises(OSError, match="no more"):
                next(results)


def test_threads_go_on_while_nobody_takes_a_result():
    log = []
    with Prefetch(jobs(None, log=log), threads=2, ahead=4) as results:
        next(results)
        end = time.monotonic() + 5
        while len(log) < 5 and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.05)
        assert log == [0, 1, 2, 3, 4]  # one is taken, four are ahead


def test_an_interrupted_wait_loses_no_result(monkeypatch):
    with Prefetch(jobs(4), threads=2, ahead=2) as results:
        real = Future.result
        monkeypatch.setattr(Future, "result", interrupt)
        with pytest.raises(KeyboardInterrupt):
            next(results)
        monkeypatch.setattr(Future, "result", real)
        assert [number for number, _ in results] == [0, 1, 2, 3]


def interrupt(_):
    raise KeyboardInterrupt


def test_threads_end_when_it_is_closed_or_let_go():
    results = Prefetch(jobs(None), threads=3, ahead=4)
    next(results)
    assert reading_threads()
    results.close()
    assert not reading_threads()
    other = Prefetch(jobs(None), threads=3, ahead=4)
    next(other)
    del other
    assert gone()


def test_a_pipeline_that_is_let_go_ends_its_threads():
    batches = pipeline(Marked(100), threads=3)
    next(batches)
    assert reading_threads()
    del batches
    gc.collect()
    assert gone()


def test_a_program_ends_with_threads_at_work():
    program = (
        "import itertools, time\n"
        "from datarax.pipeline.prefetch import Job, Prefetch\n"
        "job = lambda: Job([lambda: time.sleep(0.1)] * 2, lambda: 1)\n"
        "results = Prefetch((job() for _ in itertools.count()), threads=2, ahead=3)\n"
        "print(next(results))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "1\n", "")


def test_what_was_broken_off_is_refused_and_does_not_hang(monkeypatch):
    def fail(*_):
        raise RuntimeError("can't start new thread")

    with Prefetch(jobs(3), threads=2, ahead=2) as results:
        with monkeypatch.context() as patched:
            patched.setattr(ThreadPoolExecutor, "submit", fail)
            with pytest.raises(RuntimeError, match="can't start"):
                next(results)
        with pytest.raises(RuntimeError, match="close it, and make another"):
            next(results)


def test_out_of_range():
    with pytest.raises(ValueError, match="at least one part"):
        Job([], lambda: 0)
    with pytest.raises(ValueError, match="threads must be at least 0"):
        Prefetch(iter([]), threads=-1, ahead=1)
    with pytest.raises(ValueError, match="ahead must be at least 1"):
        Prefetch(iter([]), threads=1, ahead=0)
