"""B7: copies with changes, deep clones, and pickles."""

import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core import CrossModalOperator, DataraxModule, DataraxModuleConfig

from .examples import FusionOperator, Noisy, Shift, config, counts, indexed, records, stochastic


def mean(data):
    return {"mean": data["image"].mean()}


class Learned(nnx.Module):
    def __init__(self):
        self.weight = nnx.Param(jnp.ones(()))

    def __call__(self, data):
        return {"mean": self.weight[...] * data["image"].mean()}


def trained():
    op = FusionOperator(config())
    op.fusion_weights[...] = jnp.asarray([2.0, 3.0])
    op(records())
    return op


def test_the_subclass_pattern_of_the_page():
    op = trained()
    new = op.copy(name="new_name")
    assert (new.name, op.name) == ("new_name", None)
    assert type(new) is FusionOperator
    np.testing.assert_array_equal(new(records())["joint"], op(records())["joint"])
    assert counts(new) == counts(op) == (12, 0)


def test_a_copy_shares_nothing():
    op = trained()
    new = op.copy()
    new.fusion_weights[...] = jnp.zeros(2)
    new(records())
    assert op.fusion_weights[...].tolist() == [2, 3]
    assert counts(op) == (6, 0)
    assert new(records())["joint"].any() == False  # noqa: E712
    assert op(records())["joint"].any()


def test_another_config():
    op = trained()
    op.set_statistics({"mean": jnp.ones(())})
    new = op.copy(config=dataclasses.replace(op.config, output_fields=["other"]))
    out = new(records())
    np.testing.assert_array_equal(out["other"], op(records())["joint"])
    assert "joint" not in out
    assert op.config.output_fields == ["joint"]
    assert new.get_statistics() == {"mean": 1}


def test_the_example_of_the_page():
    module = DataraxModule(DataraxModuleConfig(), name="old")
    new_config = DataraxModuleConfig(cacheable=True)
    assert module.copy(config=new_config).config is new_config
    renamed = module.copy(name="new_name")
    assert (renamed.name, renamed.config) == ("new_name", module.config)


@pytest.mark.parametrize(
    ("given", "got"),
    [
        ({"precomputed_stats": {"mean": np.float32(5)}}, 5),
        ({"batch_stats_fn": mean}, None),
        ({"batch_stats_fn": Learned()}, None),
    ],
)
@pytest.mark.parametrize("before", [{}, {"batch_stats_fn": mean}, {"batch_stats_fn": Learned()}])
def test_a_config_that_brings_statistics(given, got, before):
    op = Shift(config("image", **before))
    op(records())
    new = op.copy(config=config("image", **given))
    if given.get("batch_stats_fn") is not before.get("batch_stats_fn") or got:
        assert new.get_statistics() == (None if got is None else {"mean": got})
    batch = records()
    shift = float(batch["image"].mean()) if got is None else got
    np.testing.assert_allclose(new(batch)["joint"], batch["image"] - shift, atol=1e-5)


def test_a_config_that_takes_statistics_away():
    op = Shift(config("image", precomputed_stats={"mean": np.float32(5)}))
    new = op.copy(config=config("image"))
    assert new.get_statistics() is None
    np.testing.assert_array_equal(new(records())["joint"], records()["image"])


def test_a_config_of_another_kind():
    with pytest.raises(TypeError, match=r"needs a CrossModalOperatorConfig.*'input_fields'"):
        trained().copy(config=DataraxModuleConfig(cacheable=True))


def test_rng_state_is_copied_where_not_given():
    op = Noisy(stochastic(), rngs=nnx.Rngs(0, noise=1))
    op(records())
    new = op.copy(name="other")
    for make in (records, indexed):
        np.testing.assert_array_equal(new(make())["joint"], op(make())["joint"])
    assert new.rngs is not op.rngs


def test_rngs_that_are_given():
    op = Noisy(stochastic(), rngs=nnx.Rngs(0, noise=1))
    before = np.asarray(op(indexed())["joint"])
    new, again = (op.copy(rngs=nnx.Rngs(0, noise=9)) for _ in range(2))
    for make in (records, indexed):
        np.testing.assert_array_equal(new(make())["joint"], again(make())["joint"])
    fresh = Noisy(stochastic(), rngs=nnx.Rngs(0, noise=9))
    np.testing.assert_array_equal(new(indexed())["joint"], fresh(indexed())["joint"])
    assert not np.intersect1d(new(indexed())["joint"], before).size
    np.testing.assert_array_equal(op(indexed())["joint"], before)


def test_from_deterministic_to_stochastic_and_back():
    op = Noisy(config())
    with pytest.raises(ValueError, match="stochastic and needs rngs"):
        op.copy(config=stochastic())
    new = op.copy(config=stochastic(), rngs=nnx.Rngs(0, noise=1))
    assert (new.stochastic, new.stream_name) == (True, "noise")
    assert len(np.unique(new(indexed())["joint"])) == 6
    back = new.copy(config=config())
    assert (back.stochastic, back.stream_name) == (False, None)
    np.testing.assert_array_equal(back(indexed())["joint"], np.full(6, -1))


def test_clone_is_deep():
    op = Noisy(stochastic(), rngs=nnx.Rngs(0, noise=1))
    op.set_statistics({"mean": jnp.ones(())})
    new = op.clone()
    assert type(new) is Noisy
    np.testing.assert_array_equal(new(records())["joint"], op(records())["joint"])
    mine = {id(v) for _, v in nnx.iter_graph(op) if isinstance(v, nnx.Variable)}
    other = {id(v) for _, v in nnx.iter_graph(new) if isinstance(v, nnx.Variable)}
    assert not mine & other
    new.set_statistics({"mean": jnp.zeros(())})
    new.fusion_weights[...] = jnp.zeros(2)
    assert op.get_statistics() == {"mean": 1}
    assert op.fusion_weights[...].tolist() == [1, 1]


def zoo():
    plain, loud = trained(), Noisy(stochastic(), rngs=nnx.Rngs(0, noise=1))
    computed = Shift(config("image", batch_stats_fn=mean))
    named = CrossModalOperator(config(), name="base")
    fixed = Shift(config("image", precomputed_stats={"mean": np.float32(2), "kind": "z"}))
    for op in (plain, loud, computed, fixed):
        op(indexed())
    return {"plain": plain, "loud": loud, "computed": computed, "fixed": fixed, "named": named}


@pytest.mark.parametrize("name", ["plain", "loud", "computed", "fixed", "named"])
def test_operators_pickle(name):
    op = zoo()[name]
    new = pickle.loads(pickle.dumps(op))
    assert (type(new), new.name, new.config) == (type(op), op.name, op.config)
    assert counts(new) == counts(op)
    assert new.get_statistics() == op.get_statistics()
    if name != "named":
        for make in (records, indexed):
            np.testing.assert_array_equal(new(make())["joint"], op(make())["joint"])
        assert counts(new) == counts(op)


ELSEWHERE = """
import pickle, sys
from core.examples import indexed, records
ops = pickle.load(sys.stdin.buffer)
out = {}
for name, op in ops.items():
    if name != "named":
        out[name] = [op(make())["joint"].tolist() for make in (records, indexed)]
        out[name].append(op.get_operation_stats())
sys.stdout.buffer.write(pickle.dumps(out))
"""


def test_operators_pickle_into_another_process():
    ops = zoo()
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        input=pickle.dumps(ops),
        capture_output=True,
        check=False,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    got = pickle.loads(done.stdout)
    assert got.keys() == {"plain", "loud", "computed", "fixed"}
    for name, (plain, numbered, stats) in got.items():
        op = ops[name]
        np.testing.assert_allclose(plain, op(records())["joint"], rtol=1e-6)
        np.testing.assert_allclose(numbered, op(indexed())["joint"], rtol=1e-6)
        assert stats == op.get_operation_stats()
