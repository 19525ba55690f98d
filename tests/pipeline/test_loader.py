import json

import jax
import numpy as np
import pytest

from datarax.core.config import DataraxModuleConfig
from datarax.core.data_source import DataSourceModule
from datarax.core.element_batch import Element
from datarax.pipeline import Loader
from datarax.sources import MemorySource


class Squares(DataSourceModule):
    """A source that gives one record at a time, odd ones without their root."""

    def __init__(self, size):
        super().__init__(DataraxModuleConfig())
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        root = {"root": np.float32(index)} if index % 2 == 0 else {}
        return Element({"square": np.float32(index**2), **root})

    def element_spec(self):
        scalar = jax.ShapeDtypeStruct((), np.float32)
        return {"square": scalar, "root": scalar}


def memory(size=10):
    return MemorySource({"x": np.arange(size), "y": -np.arange(size)})


def loader(size=10, **options):
    return Loader(memory(size), **{"batch_size": 4, "seed": 3, **options})


def content(batch):
    return jax.tree.map(np.asarray, batch.replace(metadata=None))


def equal(one, other):
    leaves = [jax.tree.leaves(content(batch)) for batch in (one, other)]
    same = jax.tree.structure(content(one)) == jax.tree.structure(content(other))
    return same and all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True))


def test_an_epoch_holds_every_record_once():
    batches = loader()
    for epoch in range(3):
        seen = []
        for _ in range(batches.batches_per_epoch):
            batch = next(batches)
            assert int(batch.epoch) == epoch
            assert batch["x"].shape == (4,)
            assert batch.record_index.dtype == np.uint32
            np.testing.assert_array_equal(batch["x"], batch.record_index)
            np.testing.assert_array_equal(batch["y"], -batch["x"])
            seen += batch["x"][batch.valid_mask].tolist()
        assert sorted(seen) == list(range(10))


def test_the_last_batch_is_padded_or_dropped():
    batches = loader(shuffle=False)
    assert batches.read(0, 2).valid_mask.tolist() == [True, True, False, False]
    assert batches.read(0, 2)["x"].tolist() == [8, 9, 8, 8]
    assert loader(drop_remainder=True).batches_per_epoch == 2
    assert loader(size=8).batches_per_epoch == 2


@pytest.mark.parametrize("source", [memory(11), Squares(11)])
def test_resuming_anywhere_and_again_gives_the_same_batches(source):
    def fresh():
        return Loader(source, batch_size=3, seed=5, optional=("root",))

    whole = fresh()
    expected = [next(whole) for _ in range(10)]
    for stop in range(9):
        first = fresh()
        for _ in range(stop):
            next(first)
        second = fresh()
        second.restore(json.loads(json.dumps(first.state())))
        assert equal(next(second), expected[stop])
        third = fresh()
        third.restore(second.state())
        for batch in expected[stop + 1 :]:
            assert equal(next(third), batch)


def test_batches_have_one_structure_whatever_they_lack():
    batches = Loader(Squares(6), batch_size=2, seed=0, shuffle=False, optional=("root",))
    structures = {jax.tree.structure(content(next(batches))) for _ in range(3)}
    assert len(structures) == 1
    assert batches.read(0, 0).presence["root"].tolist() == [True, False]


def test_a_state_that_does_not_fit_is_refused_with_every_difference():
    state = loader().state()
    other = loader(size=11, batch_size=5, seed=4)
    before = other.state()
    with pytest.raises(ValueError, match=r"batch_size: .*4.*5.*records: .*10.*11.*seed: .*3.*4"):
        other.restore(state)
    assert other.state() == before
    with pytest.raises(ValueError, match=r"batch: the state has 3, expected a number in \[0, 3\)"):
        loader().restore({**state, "batch": 3})
    with pytest.raises(ValueError, match="epoch: the state has None"):
        loader().restore({name: value for name, value in state.items() if name != "epoch"})
    changed = MemorySource({"x": np.arange(10), "y": np.arange(10)})
    with pytest.raises(ValueError, match="source: the state has"):
        Loader(changed, batch_size=4, seed=3).restore(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"seed": -1}, "seed must be in"),
        ({"seed": 2**32}, "seed must be in"),
        (
            {"batch_size": 11, "drop_remainder": True},
            "10 records give no full batch: batch_size 11",
        ),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        loader(**options)


def test_read_outside_of_an_epoch():
    with pytest.raises(ValueError, match="got 0 and 3"):
        loader().read(0, 3)
