"""B8: state to checkpoint: plain, complete, strict, all or nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from datarax.core import DataraxModule, DataraxModuleConfig

from .examples import FusionOperator, Noisy, Shift, config, counts, indexed, records, stochastic


def mean(data):
    return {"mean": data["image"].mean(axis=0), "kind": {"std": data["image"].std()}}


class Deep(FusionOperator):
    """Parameters, parts, lists, raw arrays, random streams and statistics."""

    def __init__(self, config, *, rngs):
        super().__init__(config, rngs=rngs)
        self.linear = nnx.Linear(3, 2, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(2, 2, rngs=rngs), nnx.BatchNorm(2, rngs=rngs)])
        self.part = Noisy(stochastic(), rngs=rngs)
        self.shift = Shift(
            config.__class__(input_fields=["image"], output_fields=["out"], batch_stats_fn=mean)
        )
        self.table = jnp.arange(4.0)
        self.half = nnx.Param(jnp.ones(3, jnp.bfloat16))


def deep(seed=0):
    return Deep(config(), rngs=nnx.Rngs(seed, noise=seed + 5))


def used(seed=0):
    op = deep(seed)
    op(records())
    op.part(records())
    op.shift(records())
    op.set_statistics({"scale": jnp.full(2, 7.0)})
    op.table = op.table + 1
    return op


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def leaves(tree):
    assert type(tree) is dict
    for name, value in tree.items():
        assert type(name) is str
        if isinstance(value, dict):
            yield from leaves(value)
        else:
            yield name, value


def test_plain_dicts_with_string_keys_and_arrays():
    found = list(leaves(used().get_state()))
    assert len(found) > 20
    for _, value in found:
        assert isinstance(value, jax.Array | np.ndarray)
        assert not jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def test_it_is_complete():
    state = used().get_state()
    assert state["applied_count"] == 6
    assert state["skipped_count"] == 0
    assert state["part"]["applied_count"] == 6
    assert state["layers"]["1"]["mean"].shape == (2,)
    assert state["half"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(state["table"], [1, 2, 3, 4])
    assert state["_statistics"]["values"]["scale"].tolist() == [7, 7]
    assert set(state["shift"]["_statistics"]["values"]) == {"mean", "kind"}
    assert "base_key" in state["part"]


def test_into_another_operator():
    op, fresh = used(), deep(1)
    state = op.get_state()
    fresh.set_state(state)
    same(fresh.get_state(), state)
    assert counts(fresh) == (6, 0)
    assert fresh.get_statistics()["scale"].tolist() == [7, 7]
    assert fresh.statistics_origin == "set"
    assert fresh.shift.statistics_origin == "computed"
    same(fresh.shift.get_statistics(), op.shift.get_statistics())
    for make in (records, indexed):
        np.testing.assert_array_equal(fresh.part(make())["joint"], op.part(make())["joint"])
    np.testing.assert_array_equal(fresh(records())["joint"], op(records())["joint"])


def test_into_a_fresh_operator_and_back_to_none():
    op, fresh = used(), deep(1)
    empty = deep(2).get_state()
    fresh.set_state(op.get_state())
    fresh.set_state(empty)
    assert fresh.get_statistics() is None
    assert fresh.shift.get_statistics() is None
    same(fresh.get_state(), empty)


def test_orbax_saves_and_restores_it_untargeted(tmp_path):
    op = used()
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", op.get_state())
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state")
    same(restored, op.get_state())
    fresh = deep(1)
    fresh.set_state(restored)
    same(fresh.get_state(), op.get_state())
    np.testing.assert_array_equal(fresh.part(records())["joint"], op.part(records())["joint"])


def test_the_state_is_a_snapshot():
    op = used()
    state = op.get_state()
    op(records())
    op.fusion_weights[...] = jnp.zeros(2)
    assert state["applied_count"] == 6
    assert state["fusion_weights"].tolist() == [1, 1]


@pytest.mark.parametrize("state", [None, [], 3, "state"])
def test_only_a_dict(state, untyped):
    with pytest.raises(TypeError, match=r"state must be a dict, got \w+"):
        deep().set_state(state)


def test_everything_wrong_is_named_at_once_and_nothing_changes():
    op = used()
    before = jax.tree.map(np.copy, op.get_state())
    state = used(3).get_state()
    del state["linear"]["kernel"]
    del state["part"]["_statistics"]["origin"]
    state["linear"]["more"] = np.zeros(1)
    state["layers"]["0"]["bias"] = np.zeros(7, np.float32)
    state["half"] = np.zeros(3, np.float32)
    state["table"] = "a table"
    state["_statistics"]["other"] = np.zeros(1)
    state["_statistics"]["values"]["scale"] = "large"
    with pytest.raises(ValueError, match="state does not fit Deep") as error:
        op.set_state(state)
    for told in (
        "missing key linear.kernel",
        "missing key part._statistics.origin",
        "extra key linear.more",
        "extra key _statistics.other",
        "layers.0.bias has shape (7,), expected (2,)",
        "half has dtype float32, expected bfloat16",
        "table is a str, expected an array",
        "_statistics.values.scale is a str, expected an array",
    ):
        assert told in str(error.value)
    same(op.get_state(), before)


@pytest.mark.parametrize("origin", [4, -1, 1.5, None, "set", [0]])
def test_a_wrong_origin(origin):
    op = used()
    state = op.get_state()
    state["_statistics"]["origin"] = np.asarray(origin)
    with pytest.raises(ValueError, match=r"_statistics.origin \(0 to 3\)"):
        op.set_state(state)


def test_statistics_are_replaced_whole():
    one, two = Shift(config("image")), Shift(config("image"))
    one.set_statistics({"mean": jnp.ones(3)})
    two.set_statistics({"mean": jnp.zeros(()), "std": jnp.zeros(2)})
    two.set_state(one.get_state())
    same(two.get_statistics(), {"mean": jnp.ones(3)})


def test_what_is_no_array_belongs_to_the_code():
    make = lambda x: Shift(  # noqa: E731
        config("image", precomputed_stats={"mean": np.full(2, x), "kind": "z"})
    )
    new = make(1.0)
    new.set_state(make(5.0).get_state())
    same(new.get_statistics()["mean"], np.full(2, 5.0))
    assert new.get_statistics()["kind"] == "z"
    assert new.statistics_origin == "precomputed"


def test_typed_keys_come_back_as_typed_keys():
    class Holds(FusionOperator):
        def __init__(self, config):
            super().__init__(config)
            self.key = nnx.Variable(jax.random.key(3, impl="rbg"))

    one, two = Holds(config()), Holds(config())
    two.key.set_value(jax.random.key(9, impl="rbg"))
    two.set_state(one.get_state())
    assert two.key.get_value().dtype == jax.random.key(0, impl="rbg").dtype
    np.testing.assert_array_equal(
        jax.random.key_data(two.key.get_value()), jax.random.key_data(one.key.get_value())
    )


def test_a_restored_operator_is_used_at_once():
    op, fresh = used(), deep(1)
    fresh(records())  # a plan is there already
    op.fusion_weights[...] = jnp.asarray([3.0, 4.0])
    fresh.set_state(op.get_state())
    np.testing.assert_array_equal(fresh(records())["joint"], op(records())["joint"])


def test_a_module_that_is_no_operator():
    module = DataraxModule(DataraxModuleConfig(precomputed_stats={"n": np.ones(2)}))
    state = module.get_state()
    module.reset_statistics()
    module.set_state(state)
    same(module.get_statistics(), {"n": np.ones(2)})


@pytest.mark.parametrize("held", [{}, {"mean": 2.0}])
def test_numbers_among_statistics_survive(held):
    def fresh():
        options = {"precomputed_stats": held} if held else {}
        return FusionOperator(config(**options))

    op = fresh()
    op.set_statistics({"mean": 0.5, "count": 3})
    other = fresh()
    other.set_state(op.get_state())
    assert other.get_statistics() == {"mean": 0.5, "count": 3}
    assert other.statistics_origin == "set"


def test_precomputed_statistics_come_back_after_a_reset():
    op = FusionOperator(config(precomputed_stats={"mean": 2.0, "kind": "all"}))
    state = op.get_state()
    op.reset_statistics()
    op.set_state(state)
    assert op.get_statistics() == {"mean": 2.0, "kind": "all"}


def test_statistics_that_cannot_be_saved_are_named():
    op = FusionOperator(config())
    op.set_statistics({"kind": "all"})
    with pytest.raises(ValueError, match="statistic kind is no number or array: 'all'"):
        op.get_state()
