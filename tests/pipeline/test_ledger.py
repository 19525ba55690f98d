import json
import logging

import pytest
from pipeline_sources import Marked, pipeline

from datarax.pipeline.caps import ErrorCaps, ErrorCounter, TooManyErrors
from datarax.pipeline.ledger import Ledger, read_ledger
from datarax.sources.record import Fault


def fault(row):
    return Fault("a.tar", str(row), row, "image", "broken \u2603\u2028\n\x85")


@pytest.mark.parametrize("threads", [0, 3])
def test_the_ledger_equals_the_injected_faults_over_epochs_and_resumes(tmp_path, threads):
    path = tmp_path / "run" / "quarantine.jsonl"
    bad = [1, 4, 5, 16, 23]
    lost = (Fault("2.tar", reason="cut off"),)
    source = Marked(24, bad=bad, lost=lost, skipped=[3])
    batches = pipeline(source, threads=threads, ledger=path)
    for _ in range(3):
        next(batches)
    state = batches.state()
    batches.close()
    with pipeline(source, threads=threads, ledger=path) as resumed:
        resumed.restore({**state, "step": 1})  # some are met again
        for _ in range(3):
            for _ in resumed:
                pass
        assert resumed.ledger.total == 6
    faults = read_ledger(path)
    assert sorted(map(str, faults)) == sorted(map(str, [*lost, *map(source.fault, bad)]))
    assert faults[0] == lost[0]
    assert [json.loads(line)["shard"] for line in path.read_text().splitlines()] == [
        f.shard for f in faults
    ]


def test_each_host_has_its_own_file(tmp_path):
    lost = (Fault("2.tar", reason="cut off"),)
    source = Marked(16, bad=[0, 3, 9], lost=lost)
    for host in range(2):
        part = pipeline(source, host=host, hosts=2, ledger=tmp_path / "quarantine.jsonl")
        assert len([*part]) == 4
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["quarantine.host1.jsonl", "quarantine.jsonl"]
    own = read_ledger(tmp_path / names[0])
    faults = read_ledger(tmp_path / names[1])  # those of all hosts
    assert 0 < len(own) < len(faults) == 4
    assert set(own) < set(faults)
    assert set(faults) == {*lost, *map(source.fault, [0, 3, 9])}


def test_a_cut_last_line_is_repaired(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    ledger = Ledger(path)
    assert ledger.add([fault(0), fault(1), fault(0)]) == 2
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = [fault(0), fault(1)][: 0 if cut < second else 1 if cut < len(whole) else 2]
        assert read_ledger(path) == kept
        again = Ledger(path)
        assert list(again.faults) == kept
        again.add([fault(0), fault(1)])
        assert path.read_bytes() == whole


@pytest.mark.parametrize("line", ["nonsense", '{"shard": 1, "no": 2}', "[1]", ""])
def test_a_line_that_is_no_fault_is_refused(tmp_path, line):
    path = tmp_path / "quarantine.jsonl"
    path.write_text(f"{fault(0).line()}\n{line}\n{fault(1).line()}\n")
    with pytest.raises(ValueError, match="line 2 is not of a ledger"):
        Ledger(path)


def test_nothing_is_written_without_a_fault(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    assert len([*pipeline(Marked(8), ledger=path)]) == 2
    assert not path.exists()


def test_the_log_is_limited_and_the_totals_are_right(caplog):
    ledger = Ledger(None)
    with caplog.at_level(logging.WARNING):
        for row in range(500):
            ledger.add([fault(row), fault(row // 2)])
    assert [record.getMessage()[:11] for record in caplog.records[:10]] == ["bad record:"] * 10
    assert len(caplog.records) == 11
    assert "1 more, the last" in caplog.records[10].getMessage()
    assert ledger.total == 500
    assert ledger.summary() == "500 bad records (image 500)"


def walk(caps, pattern):
    """How many records are counted before the cap, by hand: the whole past is looked at."""
    for end in range(1, len(pattern) + 1):
        recent = pattern[max(0, end - caps.window) : end]
        if sum(recent) > round(caps.fraction * caps.window, 6):
            return end
        if caps.consecutive and pattern[max(0, end - caps.consecutive) : end] == (
            [True] * caps.consecutive
        ):
            return end
    return None


@pytest.mark.parametrize(
    "caps",
    [
        ErrorCaps(fraction=0.3, window=10, consecutive=None),
        ErrorCaps(fraction=0.29, window=100, consecutive=None),
        ErrorCaps(fraction=1.0, window=5, consecutive=3),
        ErrorCaps(fraction=0.0, window=1),
        ErrorCaps(fraction=0.5, window=8, consecutive=4),
    ],
)
@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_caps_trip_exactly(caps, step):
    pattern = [(i * i // 7) % (step + 1) == 0 for i in range(300)]
    expected = walk(caps, pattern)
    counter = ErrorCounter(caps)
    for number, bad in enumerate(pattern, 1):
        if number == expected:
            with pytest.raises(TooManyErrors, match=f"bad of {number} read so far"):
                counter.add(fault(number))
            break
        counter.add(fault(number) if bad else None)
    assert counter.seen == (expected or len(pattern))


def test_good_records_are_counted_at_once_as_one_by_one():
    caps = ErrorCaps(fraction=0.5, window=8, consecutive=2)
    one, many = ErrorCounter(caps), ErrorCounter(caps)
    for bad, good in ((1, 0), (1, 3), (0, 5)):
        for counter in (one, many):
            try:
                for number in range(bad):
                    counter.add(fault(number))
            except TooManyErrors:
                counter.run = 0
        for _ in range(good):
            one.add(None)
        many.add_good(good)
        assert (many.seen, many.bad, many.run) == (one.seen, one.bad, one.run)


@pytest.mark.parametrize("threads", [0, 4])
def test_a_run_stops_at_the_cap_with_a_summary(threads, tmp_path):
    caps = ErrorCaps(fraction=1.0, consecutive=5)
    source = Marked(40, bad=[0, 1, 2, 3, *range(10, 20)])
    path = tmp_path / "quarantine.jsonl"
    options = {"shuffle": False, "threads": threads, "error_caps": caps, "ledger": path}
    with pipeline(source, **options) as batches:
        for _ in range(3):
            next(batches)
        with pytest.raises(TooManyErrors, match=r"(?s)5 records in a row.*9 bad of 15.*'14'"):
            next(batches)
        assert batches.state()["step"] == 3
    bad = [0, 1, 2, 3, 10, 11, 12, 13, 14, 15]  # the whole batch of the last straw
    assert read_ledger(path) == [source.fault(i) for i in bad]


def test_the_summary_names_what_a_user_can_set():
    counter = ErrorCounter(ErrorCaps(fraction=0.0))
    lacks = Fault("a.tar", "k", 3, "caption", "the record lacks txt; it has ['png']")
    with pytest.raises(TooManyErrors) as caught:
        counter.add(lacks)
    assert str(caught.value).splitlines()[1:] == [
        f"  - {lacks}",
        'give a field that records may lack (caption) missing = "mask"; mend the data or what its '
        'fields say (on_error = "raise" stops at the first bad record), or set other error_caps '
        "(of a run error_fraction, 1 being no cap, and error_run)",
    ]
    with pytest.raises(TooManyErrors) as caught:
        ErrorCounter(ErrorCaps(fraction=0.0)).add(Fault("a.tar", reason="cut"))
    assert "missing" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"fraction": -0.1}, {"fraction": 1.1}, {"window": 0}])
def test_caps_out_of_range(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        ErrorCaps(**wrong)
    with pytest.raises(ValueError, match="consecutive must be"):
        ErrorCaps(consecutive=0)
