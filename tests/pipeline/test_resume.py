import json
import re

import numpy as np
import orbax.checkpoint as ocp
import pytest
from pipeline_sources import SOURCES, Marked, content, pipeline, rests_in_a_fresh_process

from datarax.pipeline.pipeline import Pipeline
from datarax.sources import MemorySource
from datarax.sources.mixture import MixtureSource


def through_json(state):
    return json.loads(json.dumps(state))


def check_resume_at_every_step(make, *, epochs=2):
    """Take the state before every step; a fresh pipeline gives the whole rest, twice over."""
    with make() as whole:
        total = epochs * len(whole)
        states, expected = [], []
        for _ in range(total):
            states.append(through_json(whole.state()))
            expected.append(content(next(whole)))
    for step, state in enumerate(states):
        with make() as second:
            second.restore(state)
            for later in range(step, total):
                assert second.state() == states[later]
                if later == step + 1:  # a third time
                    with make() as third:
                        third.restore(through_json(second.state()))
                        assert [content(next(third)) for _ in range(later, total)] == (
                            expected[later:]
                        )
                assert content(next(second)) == expected[later]
    return states, expected


@pytest.mark.parametrize("threads", [0, 1, 4])
@pytest.mark.parametrize("source", SOURCES)
def test_resume_at_every_step(source, threads):
    check_resume_at_every_step(lambda: pipeline(source, threads=threads))


@pytest.mark.parametrize("source", SOURCES)
def test_threads_change_nothing(source):
    results = []
    for threads in (0, 1, 2, 5):
        with pipeline(source, threads=threads, ahead=3) as batches:
            given = [content(next(batches)) for _ in range(2 * len(batches))]
            results.append((given, batches.ledger.faults))
    assert all(result == results[0] for result in results)


def test_resume_in_a_fresh_process():
    questions, expected = [], []
    for source in SOURCES:
        whole = pipeline(source)
        total = 2 * len(whole)
        states, given = zip(
            *((whole.state(), content(next(whole))) for _ in range(total)), strict=True
        )
        for step in (1, total // 2, total - 1):
            questions.append((source, states[step], total - step))
            expected.append([*given[step:]])
    assert rests_in_a_fresh_process(questions, threads=2) == expected


def test_restore_while_reading_ahead():
    with pipeline("marked", threads=2) as batches:
        state = batches.state()
        first = [content(next(batches)) for _ in range(3)]
        batches.restore(state)
        assert [content(next(batches)) for _ in range(3)] == first


def test_a_change_in_the_number_of_hosts_keeps_the_global_batches():
    one = pipeline("marked", host=0, hosts=1)
    next(one), next(one)
    two = [pipeline("marked", host=host, hosts=2) for host in range(2)]
    for part in two:
        part.restore(one.state())
    for _ in range(len(one)):
        whole = next(one)
        parts = [next(part) for part in two]
        np.testing.assert_array_equal(np.concatenate([part["id"] for part in parts]), whole["id"])
        np.testing.assert_array_equal(
            np.concatenate([part.record_index for part in parts]), whole.record_index
        )


def test_an_epoch_broken_off_goes_on_where_it_was():
    batches = pipeline(Marked(12), shuffle=False)
    for batch in batches:
        assert batch["id"][0] == 0
        break
    assert [int(batch["id"][0]) for batch in batches] == [4, 8]
    assert [int(batch["id"][0]) for batch in batches] == [0, 4, 8]


def test_an_operator_that_fails_leaves_the_step_to_be_taken():
    failing = [True]

    def operate(batch):
        if failing:
            failing.clear()
            raise RuntimeError("once")
        return batch

    source = Marked(8, bad=[1], skipped=[2])
    batches = Pipeline(source, [operate], batch_size=4, seed=0, shuffle=False, threads=1)
    with pytest.raises(RuntimeError, match="once"):
        next(batches)
    assert [batch["id"].tolist() for batch in batches] == [[0, 0, 0, 3], [4, 5, 6, 7]]
    assert (batches.counter.seen, batches.counter.bad, batches.skipped) == (8, 1, 1)
    batches.close()


def test_the_state_goes_into_a_step_of_orbax(tmp_path):
    batches = pipeline("mixture")
    next(batches)
    expected = batches.state()
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        tree = ocp.args.StandardSave({"w": np.ones(2)})
        loader = ocp.args.JsonSave(expected)
        manager.save(1, args=ocp.args.Composite(params=tree, loader=loader))
        manager.wait_until_finished()
        kept = manager.restore(1, args=ocp.args.Composite(loader=ocp.args.JsonRestore()))
    assert kept["loader"] == expected
    fresh = pipeline("mixture")
    fresh.restore(kept["loader"])
    assert content(next(fresh)) == content(next(batches))


def test_a_state_that_does_not_fit_is_refused_with_every_difference():
    batches = pipeline(MemorySource({"x": np.arange(10), "y": np.arange(10)}))
    next(batches)
    state = batches.state()
    other = pipeline(
        MemorySource({"x": np.arange(11.0), "z": np.arange(11)}),
        batch_size=5,
        seed=4,
        shuffle=False,
        remainder="drop",
    )
    before = other.state()
    with pytest.raises(ValueError, match="the state does not fit this pipeline") as caught:
        other.restore({**state, "step": 2})
    lines = str(caught.value).splitlines()[1:]
    assert [line.strip().split(":")[0] for line in lines] == [
        "batch_size",
        "fields.x",
        "fields.y",
        "fields.z",
        "records",
        "remainder",
        "seed",
        "shuffle",
        "source",
        "step",
    ]
    assert "  fields.y: the state has 'int64[]', the pipeline nothing" in lines
    assert "  batch_size: the state has 4, the pipeline 5" in lines
    assert other.state() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 3}, r"step: the state has 3, expected a whole number in \[0, 3\)"),
        ({"step": True}, "step: the state has True"),
        ({"epoch": -1}, "epoch: the state has -1"),
        ({"epoch": None}, "epoch: the state has None"),
        ({"mixture": {"a": 3}}, "mixture.a: the state has 3, the pipeline nothing"),
        ({"more": 1}, "more: the state has 1, the pipeline nothing"),
    ],
)
def test_places_that_are_none(change, message):
    batches = pipeline("memory")
    state = {**batches.state(), **change}
    with pytest.raises(ValueError, match=message):
        batches.restore(state)
    with pytest.raises(ValueError, match="must be a dict, got list"):
        batches.restore([])


def test_other_shares_are_named():
    def mixed(weight):
        sources = {"a": MemorySource({"x": np.arange(4)}), "b": MemorySource({"x": np.arange(4)})}
        return pipeline(MixtureSource(sources, {"a": 1, "b": weight}, records=12))

    message = re.escape("mixture.a: the state has 6, the pipeline 4")
    with pytest.raises(ValueError, match=message):
        mixed(2).restore(mixed(1).state())
