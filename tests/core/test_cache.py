"""B3: `cacheable=True` really caches, and never returns what is no longer true."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core import Batch, CrossModalOperator, Element

from .examples import (
    FusionOperator,
    Noisy,
    Notes,
    Queue,
    Shift,
    Traced,
    arrays,
    config,
    counts,
    records,
    stochastic,
)


class Meter:
    """A function of statistics that counts its calls."""

    def __init__(self):
        self.count = 0

    def __call__(self, data):
        self.count += 1
        return {"mean": data["image"].mean()}


def compiled_calls(monkeypatch):
    """A list that grows by one with each run of a compiled call."""
    from datarax.core import dispatch

    runs = []
    values = dispatch.Plan.values
    monkeypatch.setattr(dispatch.Plan, "values", lambda plan: runs.append(1) or values(plan))
    return runs


def calls_back(runs):
    """An operator whose `apply` tells the host each time it runs, not when it is traced."""

    class Telling(CrossModalOperator):
        def apply(self, data, state, metadata, random_params=None, stats=None):
            jax.debug.callback(lambda: runs.append(1))
            return self._store_outputs(data, [data["image"]]), state, metadata

    return Telling(config("image", cacheable=True, batch_strategy="scan"))


def test_the_same_content_runs_nothing_and_counts():
    runs, meter = [], Meter()
    op = calls_back(runs)
    op.batch_stats_fn = meter
    first = op(records(4))
    jax.effects_barrier()
    assert (len(runs), meter.count, counts(op)) == (4, 1, (4, 0))
    second = op(records(4))  # other arrays, the same content
    jax.effects_barrier()
    assert (len(runs), meter.count, counts(op)) == (4, 1, (8, 0))
    np.testing.assert_array_equal(second["joint"], first["joint"])


def test_without_cacheable_everything_runs_again():
    meter = Meter()
    op = Shift(config("image", batch_stats_fn=meter))
    op(records())
    op(records())
    assert meter.count == 2


def test_masked_rows_are_counted_on_a_hit():
    op = Traced(config("image", cacheable=True))
    batch = records(6, valid_mask=jnp.arange(6) < 4)
    op(batch)
    op(batch)
    assert counts(op) == (8, 4)


def test_a_hit_restores_the_statistics_of_that_content():
    op = Shift(config("image", cacheable=True, batch_stats_fn=Meter()))
    one, two = records(), Batch.from_parts(arrays(seed=1))
    op(one)
    op(two)
    op(one)
    assert op.get_statistics()["mean"] == one["image"].mean()
    assert op.statistics_origin == "computed"


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b.replace(data={**b.data, "image": b["image"].at[0, 0].add(1)}),
        lambda b: b.replace(data={**b.data, "image": jnp.reshape(b["image"], (6, 1, 3))}),
        lambda b: b.replace(valid_mask=jnp.arange(6) < 5),
        lambda b: b.replace(presence={"image": jnp.arange(6) < 5}),
    ],
    ids=["value", "shape", "valid_mask", "presence"],
)
def test_other_content_is_another_result(change):
    plain, op = Traced(config("image")), Traced(config("image", cacheable=True))
    batch = records()
    op(batch)
    expected, got = plain(change(batch)), op(change(batch))
    np.testing.assert_array_equal(got["joint"], expected["joint"])
    assert got.presence.keys() == expected.presence.keys()


def test_new_parameters_are_another_result():
    op = Traced(config("image", cacheable=True))
    batch = records()
    op(batch)
    op.weight[...] = jnp.float32(3)  # in place
    np.testing.assert_array_equal(op(batch)["joint"], 3 * batch["image"])
    op.weight = nnx.Param(jnp.float32(4))  # replaced
    np.testing.assert_array_equal(op(batch)["joint"], 4 * batch["image"])


def test_new_statistics_are_another_result():
    op = Shift(config("image", cacheable=True))
    batch = records()
    for mean in (1.0, 2.0, 1.0):
        op.set_statistics({"mean": jnp.float32(mean)})
        np.testing.assert_array_equal(op(batch)["joint"], batch["image"] - mean)
        np.testing.assert_array_equal(
            op(batch, stats={"mean": jnp.float32(5)})["joint"], batch["image"] - 5
        )
    op.reset_statistics()
    np.testing.assert_array_equal(op(batch)["joint"], batch["image"])


def test_statistics_set_by_hand_go_before_a_computed_hit():
    op = Shift(config("image", cacheable=True, batch_stats_fn=Meter()))
    batch = records()
    op(batch)
    for mean in (1.0, 2.0):
        op.set_statistics({"mean": jnp.float32(mean)})
        np.testing.assert_array_equal(op(batch)["joint"], batch["image"] - mean)
        assert op.statistics_origin == "set"
    op.reset_statistics()
    np.testing.assert_array_equal(op(batch)["joint"], batch["image"] - batch["image"].mean())


def test_a_changed_setting_is_another_result():
    class Scaled(Traced):
        factor = 1.0

        def apply(self, data, state, metadata, random_params=None, stats=None):
            (x, *_) = self._extract_inputs(data)
            return self._store_outputs(data, [x * self.factor]), state, metadata

    op = Scaled(config("image", cacheable=True))
    for factor in (1.0, 2.0, 1.0, 3.0):
        op.factor = factor
        np.testing.assert_array_equal(op(records())["joint"], records()["image"] * factor)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.int32, jnp.bool_, jnp.float8_e4m3fn])
def test_any_dtype_can_be_hashed(dtype):
    op = Traced(config("image", cacheable=True))
    data = {**arrays(), "other": jnp.ones((6, 2), dtype)}
    op(Batch.from_parts(data))
    data["other"] = jnp.zeros((6, 2), dtype)
    out = op(Batch.from_parts(data))
    assert out["other"] is data["other"]


def test_typed_keys_can_be_hashed():
    op = Traced(config("image", cacheable=True))
    data = {"image": arrays()["image"], "keys": jax.random.split(jax.random.key(0), 6)}
    np.testing.assert_array_equal(
        op(Batch.from_parts(data))["joint"], op(Batch.from_parts(data))["joint"]
    )


def test_an_unhashable_statistics_function_is_no_obstacle():
    class Unhashable(Meter):
        __hash__ = None

    meter = Unhashable()
    op = Shift(config("image", cacheable=True, batch_stats_fn=meter))
    op(records())
    op(records())
    assert meter.count == 1


def test_a_hit_carries_the_new_batch():
    op = Traced(config("image", cacheable=True))
    one = records(metadata=[{"key": i} for i in range(6)])
    two = records(metadata=[{"key": -i} for i in range(6)])
    op(one)
    out = op(two)
    assert out.metadata is two.metadata
    assert out["text"] is two["text"]


def test_the_cache_is_bounded(monkeypatch):
    from datarax.core import dispatch

    monkeypatch.setattr(dispatch, "CACHE_ENTRIES", 2)
    meter = Meter()
    op = Shift(config("image", cacheable=True, batch_stats_fn=meter))
    batches = [Batch.from_parts(arrays(seed=i)) for i in range(3)]
    for batch in batches:
        op(batch)
    op(batches[2])
    op(batches[1])
    assert meter.count == 3
    op(batches[0])  # gone: the oldest
    assert meter.count == 4
    assert dispatch.CACHE_ENTRIES == 2


def test_reset_cache_empties_it():
    meter = Meter()
    op = Shift(config("image", cacheable=True, batch_stats_fn=meter))
    op.reset_cache()  # nothing to empty yet
    op(records())
    op.reset_cache()
    op(records())
    assert meter.count == 2
    plain = Shift(config("image"))
    plain(records())
    plain.reset_cache()


def test_a_stochastic_operator_is_never_served_an_old_draw():
    op = Noisy(stochastic(cacheable=True), rngs=nnx.Rngs(0, noise=1))
    first, second = op(records())["joint"], op(records())["joint"]
    assert not np.array_equal(first, second)


def test_a_stochastic_operator_in_evaluation_is_cached(monkeypatch):
    op = Noisy(stochastic(cacheable=True), rngs=nnx.Rngs(0, noise=1))
    op.eval()
    op(records())
    hashed = compiled_calls(monkeypatch)  # one for the key, one more for a run
    op(records())
    assert len(hashed) == 1
    op.train()
    assert not np.array_equal(op(records())["joint"], op(records())["joint"])


def test_an_operator_that_updates_variables_is_never_cached():
    op = Queue(config("image", cacheable=True))
    batch = records()
    op(batch)
    assert op(batch)["joint"][0] == batch["image"].sum()


def test_a_variable_that_returns_to_an_old_value():
    class Toggle(CrossModalOperator):
        def __init__(self, config):
            super().__init__(config)
            self.flag = nnx.Variable(jnp.float32(0))

        def apply_batch(self, batch, stats=None):
            out = jnp.broadcast_to(self.flag[...], (batch.batch_size,))
            self.flag[...] = 1 - self.flag[...]
            return batch.replace(data=self._store_outputs(batch.data, [out]))

    op = Toggle(config("image", cacheable=True))
    assert [float(op(records())["joint"][0]) for _ in range(5)] == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("wrap", [nnx.jit, lambda f: f], ids=["nnx.jit", "jax.grad"])
def test_tracing_bypasses_it(wrap):
    meter = Meter()
    op = Shift(config("image", cacheable=True, batch_stats_fn=meter))
    op(records())

    def loss(op, x):
        return op(Batch.from_parts({"image": x})).data["joint"].sum()

    if wrap is nnx.jit:
        wrap(loss)(op, records()["image"])
    else:
        gradient = jax.grad(lambda x: loss(op, x))(records()["image"])
        assert gradient.shape == (6, 3)
    assert meter.count == 2


def test_clones_do_not_share_it():
    meter = Meter()
    op = Shift(config("image", cacheable=True, batch_stats_fn=meter))
    op(records())
    op.clone()(records())
    assert meter.count == 2


def test_elements_stacked_anew_hit():
    meter = Meter()
    op = Shift(config("image", cacheable=True, batch_stats_fn=meter))
    elements = [Element({"image": np.ones(2, np.float32)}) for _ in range(3)]
    op(Batch.from_elements(elements))
    op(Batch.from_elements(elements))
    assert meter.count == 1
    assert Notes().count == 0


def test_weak_and_strong_types_are_told_apart():
    op = FusionOperator(config(cacheable=True))
    half = jnp.ones((2, 3), jnp.bfloat16)
    weak = jax.lax.full((2, 3), 1.0)
    strong = jnp.ones((2, 3), jnp.float32)
    assert weak.weak_type
    with jax.numpy_dtype_promotion("standard"):
        fresh = FusionOperator(config())
        for a in (weak, strong):
            batch = Batch.from_parts({"image": a, "text": half})
            assert op(batch)["joint"].dtype == fresh(batch)["joint"].dtype
