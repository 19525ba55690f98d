"""B4: statistics, where they come from and which goes first."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core import Batch, DataraxModule, DataraxModuleConfig

from .examples import Shift, arrays, config, records


def mean(data):
    return {"mean": data["image"].mean()}


class Center(nnx.Module):
    """Statistics that are learned."""

    def __init__(self):
        self.weight = nnx.Param(jnp.ones(()))

    def __call__(self, data):
        return {"mean": self.weight[...] * data["image"].mean()}


def shift(**options):
    return Shift(config("image", **options))


def shifted_by(op, batch, **call):
    return np.mean(batch["image"] - op(batch, **call)["joint"])


def test_a_function_runs_on_every_call():
    calls = []

    def counted(data):
        calls.append(sorted(data))
        return mean(data)

    op = shift(batch_stats_fn=counted)
    for seed in range(3):
        batch = Batch.from_parts(arrays(seed=seed))
        assert shifted_by(op, batch) == pytest.approx(float(batch["image"].mean()), abs=1e-6)
        assert op.get_statistics()["mean"] == batch["image"].mean()
    assert calls == [["image", "text"]] * 3


def test_precomputed_statistics_reach_apply():
    op = shift(precomputed_stats={"mean": np.float32(2)})
    assert shifted_by(op, records()) == pytest.approx(2)
    shifted = nnx.jit(lambda op, b: op(b)["joint"])(op, records())
    np.testing.assert_allclose(shifted, records()["image"] - 2, rtol=1e-6)


def test_without_any_stats_is_none():
    assert shifted_by(shift(), records()) == 0
    assert shift().get_statistics() is None


def test_precedence():
    batch = records()
    own = float(batch["image"].mean())
    op = shift(batch_stats_fn=mean)
    assert shifted_by(op, batch) == pytest.approx(own, abs=1e-6)
    op.set_statistics({"mean": jnp.float32(3)})
    assert shifted_by(op, batch) == pytest.approx(3)
    assert op.get_statistics() == {"mean": 3}
    explicit = {"mean": jnp.float32(4)}
    assert shifted_by(op, batch, stats=explicit) == pytest.approx(4)
    assert op.get_statistics() == {"mean": 3}  # an argument is not kept
    op.reset_statistics()
    assert op.get_statistics() is None
    assert shifted_by(op, batch) == pytest.approx(own, abs=1e-6)


def test_precedence_over_precomputed():
    batch = records()
    op = shift(precomputed_stats={"mean": np.float32(2)})
    op.set_statistics({"mean": jnp.float32(3)})
    assert shifted_by(op, batch) == pytest.approx(3)
    assert shifted_by(op, batch, stats={"mean": jnp.float32(4)}) == pytest.approx(4)
    op.reset_statistics()
    assert op.get_statistics() is None
    assert shifted_by(op, batch) == 0


def test_an_explicit_argument_does_not_run_the_function():
    def never(data):
        raise AssertionError("not to be run")

    op = shift(batch_stats_fn=never)
    assert shifted_by(op, records(), stats={"mean": jnp.float32(4)}) == pytest.approx(4)


def test_compute_get_set_reset():
    module = DataraxModule(DataraxModuleConfig(batch_stats_fn=lambda x: {"n": x.sum()}))
    assert module.get_statistics() is None
    assert module._computed_stats is None
    assert module.compute_statistics(jnp.ones(3)) == {"n": 3}
    assert module.get_statistics() == module._computed_stats == {"n": 3}
    module.set_statistics({"n": 5, "name": "by hand"})
    assert module.get_statistics() == module._computed_stats == {"n": 5, "name": "by hand"}
    module.reset_statistics()
    assert module.get_statistics() is None
    assert module._computed_stats is None
    assert module.compute_statistics(jnp.ones(4)) == {"n": 4}
    assert module.get_statistics() == {"n": 4}


def test_compute_without_a_function():
    module = DataraxModule(DataraxModuleConfig(precomputed_stats={"n": 1}))
    assert module.compute_statistics(jnp.ones(3)) is None
    assert module.get_statistics() == {"n": 1}
    assert module._computed_stats is None


def test_set_after_reset_counts_again():
    module = DataraxModule(DataraxModuleConfig(precomputed_stats={"n": 1}))
    module.reset_statistics()
    module.set_statistics({"n": 2})
    assert module.get_statistics() == {"n": 2}


def test_wrong_types(untyped):
    with pytest.raises(ValueError, match="statistics must be a dict, got list"):
        shift().set_statistics([1])
    with pytest.raises(ValueError, match="batch_stats_fn must return a dict, got float"):
        shift(batch_stats_fn=lambda data: 3.0)(records())


def test_the_callers_dict_is_not_held():
    given = {"mean": np.float32(2)}
    op = shift(precomputed_stats=given)
    op.get_statistics()["mean"] = np.float32(9)
    assert op.get_statistics() == {"mean": 2}


def test_garbage_in_masked_rows_never_reaches_the_function():
    rows = jnp.arange(6) < 4
    image = jnp.where(rows[:, None], jnp.ones((6, 3)), jnp.nan)
    for parts in ({"valid_mask": rows}, {"presence": {"image": rows}}):
        op = shift(batch_stats_fn=lambda data: {"mean": data["image"].sum() / 12})
        batch = Batch.from_parts({"image": image}, **parts)
        assert not np.isnan(op(batch)["joint"]).any()
        assert op.get_statistics()["mean"] == 1
        assert np.isfinite(nnx.jit(lambda op, b: op(b)["joint"])(op, batch)).all()


def test_a_module_is_lifted_and_trains():
    op = shift(batch_stats_fn=Center())
    batch = records()

    def loss(op):
        return (op(batch)["joint"] ** 2).sum()

    gradient = nnx.grad(loss)(op)
    weight = gradient["batch_stats_fn"]["weight"][...]
    m = np.asarray(batch["image"], np.float64)
    assert weight == pytest.approx(-2 * m.mean() * (m - m.mean()).sum(), abs=1e-4)
    op.batch_stats_fn.weight[...] = jnp.float32(2)
    assert shifted_by(op, batch) == pytest.approx(2 * m.mean(), abs=1e-6)
    assert "weight" in op.get_state()["batch_stats_fn"]


def test_statistics_pass_through_jit():
    op = shift(batch_stats_fn=mean)
    op(records())  # eagerly once: their structure is known
    other = Batch.from_parts(arrays(seed=3))
    nnx.jit(lambda op, b: op(b).data)(op, other)
    assert op.get_statistics()["mean"] == pytest.approx(float(other["image"].mean()), abs=1e-6)


def test_nothing_is_stored_from_a_plain_transform():
    op = shift(batch_stats_fn=mean)
    op(records())
    before = op.get_statistics()
    other = arrays(seed=3)["image"]
    jax.jit(lambda x: op(Batch.from_parts({"image": x})).data)(other)
    jax.grad(lambda x: op(Batch.from_parts({"image": x}))["joint"].sum())(other)
    assert op.get_statistics() == before
    assert not isinstance(op.get_statistics()["mean"], jax.core.Tracer)


def test_statistics_in_a_carried_scan():
    op = shift(batch_stats_fn=mean)
    op(records())
    stack = jnp.stack([arrays(seed=i)["image"] for i in range(3)])

    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0))
    def steps(op, image):
        return op, op(Batch.from_parts({"image": image}))["joint"]

    _, out = steps(op, stack)
    np.testing.assert_allclose(out, stack - stack.mean((1, 2), keepdims=True), atol=1e-6)
    assert op.get_statistics()["mean"] == pytest.approx(float(stack[-1].mean()), abs=1e-6)


def test_apply_batch_by_hand_uses_get_statistics():
    op = shift(precomputed_stats={"mean": np.float32(2)})
    out = op.apply_batch(records())
    np.testing.assert_allclose(out["joint"], records()["image"] - 2, rtol=1e-6)


def test_statistics_of_any_leaves():
    op = shift()
    stats = {"mean": jnp.zeros(3), "kind": "z", "n": 3, "parts": [np.ones(2), None]}
    op.set_statistics(stats)
    got = op.get_statistics()
    assert got.keys() == stats.keys()
    assert (got["kind"], got["n"], got["parts"][1]) == ("z", 3, None)
