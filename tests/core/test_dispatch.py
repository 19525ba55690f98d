"""The eager call: what is replaced is seen, nothing compiles twice, nothing is kept alive."""

import contextlib
import copy
import gc
import threading
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from datarax.core import Batch, CrossModalOperator, dispatch

from .examples import (
    FusionOperator,
    Noisy,
    PairLoss,
    Queue,
    Shift,
    Traced,
    arrays,
    config,
    counts,
    indexed,
    records,
    stochastic,
)


class Part(nnx.Module):
    def __init__(self, weight):
        self.weight = nnx.Param(jnp.float32(weight))
        self.factor = 1.0


class Deep(CrossModalOperator):
    """Output = image * (sum of weights and factors of all that lies below)."""

    def __init__(self, config):
        super().__init__(config)
        self.part = Part(1)
        self.items = nnx.List([Part(2), Part(3)])
        self.plain = nnx.data([Part(0)])
        self.table = jnp.float32(0)
        self.offset = 0.0

    def apply(self, data, state, metadata, random_params=None, stats=None):
        parts = [self.part, *self.items, *self.plain]
        total = sum(p.weight[...] * p.factor for p in parts) + self.table + self.offset
        return self._store_outputs(data, [data["image"] * total]), state, metadata


def total(op):
    batch = Batch.from_parts({"image": jnp.ones((2, 1))})
    return float(op(batch)["joint"][0, 0])


@contextlib.contextmanager
def compilations():
    """A list of what was compiled meanwhile."""
    found = []

    def listen(name, _, **__):
        if "backend_compile" in name:
            found.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def set_item(op, value):
    op.items[1] = value


CHANGES = {
    "parameter in place": (lambda op: op.part.weight.set_value(jnp.float32(10)), 15),
    "parameter by index": (lambda op: op.part.weight.__setitem__(..., jnp.float32(10)), 15),
    "parameter": (lambda op: setattr(op.part, "weight", nnx.Param(jnp.float32(10))), 15),
    "part": (lambda op: setattr(op, "part", Part(10)), 15),
    "attribute of a part": (lambda op: setattr(op.part, "factor", 10.0), 15),
    "attribute": (lambda op: setattr(op, "offset", 4.0), 10),
    "array": (lambda op: setattr(op, "table", jnp.float32(4)), 10),
    "item of a list": (lambda op: set_item(op, Part(10)), 13),
    "parameter in a list": (
        lambda op: setattr(op.items[0], "weight", nnx.Param(jnp.float32(9))),
        13,
    ),
    "attribute in a list": (lambda op: setattr(op.items[0], "factor", 2.0), 8),
    "item of a plain list": (lambda op: op.plain.__setitem__(0, Part(4)), 10),
    "item more": (lambda op: op.items.append(Part(4)), 10),
    "item less": (lambda op: op.items.pop(), 3),
    "list": (lambda op: setattr(op, "items", nnx.List([Part(1)])), 2),
    "nnx.update": (lambda op: nnx.update(op, {"part": {"weight": jnp.float32(10)}}), 15),
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_what_is_replaced_is_seen(change, expected):
    op = Deep(config("image"))
    assert total(op) == 6
    assert total(op) == 6
    change(op)
    assert total(op) == expected
    assert total(op) == expected


def test_a_replaced_config_is_seen():
    op = FusionOperator(config())
    op(records())
    op.config = config("image")
    np.testing.assert_array_equal(op(records())["joint"], records()["image"])


COPIES = {
    "clone": lambda op: op.clone(),
    "copy": lambda op: op.copy(),
    "deepcopy": copy.deepcopy,
    "split and merge": lambda op: nnx.merge(
        nnx.graphdef(op), jax.tree.map(jnp.copy, nnx.state(op))
    ),
    "nnx.clone": nnx.clone,
}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_copies_never_use_the_plan_of_the_original(make):
    op = Deep(config("image"))
    assert total(op) == 6
    other = make(op)
    other.part.weight[...] = jnp.float32(10)
    assert (total(other), total(op)) == (15, 6)
    op.part.weight[...] = jnp.float32(20)
    assert (total(other), total(op)) == (15, 25)
    assert counts(other) == (6, 0)
    assert counts(op) == (6, 0)


def test_an_optimizer_in_place():
    op, batch = FusionOperator(config()), records()
    optimizer = nnx.Optimizer(op, optax.sgd(0.1), wrt=nnx.Param)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(3):
            gradient = nnx.grad(lambda op: (op(batch)["joint"] ** 2).sum())(op)
            before = op(batch)["joint"]
            optimizer.update(op, gradient)
            w = np.asarray(op.fusion_weights[...])
            expected = w[0] * np.asarray(batch["image"]) + w[1] * np.asarray(batch["text"])
            np.testing.assert_allclose(op(batch)["joint"], expected, rtol=1e-4, atol=1e-6)
            assert not np.array_equal(before, op(batch)["joint"])


class Model(nnx.Module):
    """A user's module that holds operators."""

    def __init__(self, rngs):
        self.tower = nnx.Linear(3, 3, rngs=rngs)
        self.fuse = FusionOperator(config("image", "text"))
        self.loss = PairLoss(config("joint", "text", out=["loss"]))

    def __call__(self, batch):
        batch = batch.replace(data={**batch.data, "image": self.tower(batch["image"])})
        return self.loss(self.fuse(batch)).mean("loss")


def test_joint_training_reaches_both():
    model, batch = Model(nnx.Rngs(0)), records(valid_mask=jnp.arange(6) < 5)
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, batch):
        value, gradient = nnx.value_and_grad(lambda m: m(batch))(model)
        optimizer.update(model, gradient)
        return value, gradient

    with jax.numpy_dtype_promotion("standard"):
        values = []
        for _ in range(30):
            value, gradient = step(model, optimizer, batch)
            values.append(float(value))
    assert values[-1] < 0.7 * values[0]
    for name, x in nnx.to_flat_state(gradient):
        assert np.asarray(x[...]).any(), name
    assert counts(model.fuse) == (150, 30)
    np.testing.assert_allclose(model(batch), values[-1], rtol=0.2)


def test_repeated_calls_compile_nothing():
    op = Traced(config("image"))
    batches = [Batch.from_parts(arrays(seed=i), metadata=[{"key": i}] * 6) for i in range(3)]
    weights = [jnp.float32(i) for i in range(3)]
    op(batches[0])
    traced = op.runs.count
    with compilations() as found:
        for weight, batch in zip(weights, batches, strict=True):
            op(batch)
            op.weight.set_value(weight)
            op(batch)
    assert not found
    assert op.runs.count == traced


def test_toggling_compiles_each_mode_once():
    op = Noisy(stochastic(), rngs=nnx.Rngs(0, noise=1))
    batch = indexed()
    for _ in range(2):
        op(batch)
        op.eval()
        op(batch)
        op.train()
    with compilations() as found:
        for _ in range(2):
            op(batch)
            op.eval()
            op(batch)
            op.train()
    assert not found


def test_an_attribute_that_is_always_new_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(dispatch, "COMPILED_GRAPHS", 3)
    made = []
    jit = dispatch._jit
    alive = lambda: sum(r() is not None for r in made)  # noqa: E731

    def noting(layout, run):
        compiled = jit(layout, run)
        made.append(weakref.ref(compiled))
        return compiled

    monkeypatch.setattr(dispatch, "_jit", noting)
    op = Deep(config("image"))
    for i in range(6):
        op.offset = float(i)
        assert total(op) == 6 + i
    gc.collect()
    assert len(made) == 6
    assert alive() <= 3


@pytest.mark.parametrize("kind", [FusionOperator, PairLoss])
def test_what_is_handed_through_is_the_same_object(kind):
    batch = records(
        valid_mask=jnp.arange(6) < 5, record_index=jnp.arange(6, dtype=jnp.uint32), epoch=1
    )
    out = kind(config())(batch)
    for name in ("image", "text"):
        assert out[name] is batch[name]
    assert out.valid_mask is batch.valid_mask
    assert out.record_index is batch.record_index
    assert out.epoch is batch.epoch


def test_an_alias_of_an_input_is_the_same_object():
    class Alias(CrossModalOperator):
        def apply_batch(self, batch, stats=None):
            return batch.replace(data=self._store_outputs(batch.data, [batch["image"]]))

    batch = records()
    out = Alias(config())(batch)
    assert out["joint"] is batch["image"]


@pytest.mark.parametrize("kind", [FusionOperator, Traced, PairLoss, Queue, Shift])
def test_no_operator_is_kept_alive(kind):
    op = kind(config("image", "text", cacheable=True))
    op(records())
    op(records())
    plan, op = weakref.ref(op.runtime.plan), weakref.ref(op)
    gc.collect()
    assert op() is None
    assert plan() is None


EQUAL = {
    "fusion": lambda: FusionOperator(config()),
    "scan": lambda: FusionOperator(config(batch_strategy="scan")),
    "loss": lambda: PairLoss(config()),
    "queue": lambda: Queue(config()),
    "statistics": lambda: Shift(config(batch_stats_fn=lambda d: {"mean": d["image"].mean()})),
    "draws": lambda: Noisy(stochastic(), rngs=nnx.Rngs(0, noise=1)),
}


@pytest.mark.parametrize("make", EQUAL.values(), ids=EQUAL)
@pytest.mark.parametrize("masked", [False, True])
def test_eager_is_jit(make, masked):
    parts = {"valid_mask": jnp.arange(6) < 4} if masked else {}
    eager, jitted = make(), make()
    call = nnx.jit(lambda op, b: op(b))
    for batch in (records(**parts), indexed(**parts)):
        one, two = eager(batch), call(jitted, batch)
        assert jax.tree.structure(one) == jax.tree.structure(two)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one, two)
    assert counts(eager) == counts(jitted)


def test_a_dropout_inside_apply_is_refused_not_frozen():
    class Dropping(FusionOperator):
        def __init__(self, config, *, rngs):
            super().__init__(config, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def apply(self, data, state, metadata, random_params=None, stats=None):
            return self._store_outputs(data, [self.dropout(data["image"])]), state, metadata

    with pytest.raises(Exception, match="trace level"):
        Dropping(config(), rngs=nnx.Rngs(0))(records())


def test_another_thread_is_eager_too():
    op, out = FusionOperator(config()), []
    thread = threading.Thread(target=lambda: out.append((dispatch.is_eager(), op(records()))))
    thread.start()
    thread.join()
    assert out[0][0]
    assert counts(op) == (6, 0)
    assert dispatch.is_eager()
    assert not jax.jit(lambda x: x if dispatch.is_eager() else x * 0)(1)


def test_shared_parameters_stay_shared():
    op = Deep(config("image"))
    op.items[0].weight = op.part.weight
    assert total(op) == 5
    op.part.weight[...] = jnp.float32(2)
    assert total(op) == 7
