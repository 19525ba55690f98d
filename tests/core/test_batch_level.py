"""B12: operators that override `apply_batch` alone work wherever an operator is called."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core import Batch, CrossModalOperator

from .examples import PairLoss, Queue, arrays, config, counts, records

VALID = jnp.asarray([True, True, True, True, False, False])
TEXT = jnp.asarray([True, True, False, True, True, False])
ROWS = np.asarray(VALID & TEXT)


def expected():
    a, b = (np.asarray(arrays()[n], np.float64)[ROWS] for n in ("image", "text"))
    out = np.zeros(6)
    out[ROWS] = ((a - b.mean(0)) ** 2).sum(-1)
    return out


def dirty(garbage):
    data = arrays()
    data["image"] = jnp.where(VALID[:, None], data["image"], garbage)
    data["text"] = jnp.where((VALID & TEXT)[:, None], data["text"], garbage)
    return Batch.from_parts(data, valid_mask=VALID, presence={"text": TEXT})


class Model(nnx.Module):
    """A user's module."""

    def __init__(self, op):
        self.op = op

    def __call__(self, batch):
        return self.op(batch)


CALLS = {
    "eager": lambda op, b: op(b),
    "nnx.jit": nnx.jit(lambda op, b: op(b)),
    "jax.jit": lambda op, b: jax.jit(lambda b: op(b))(b),
    "module": lambda op, b: Model(op)(b),
    "nnx.jit of a module": lambda op, b: nnx.jit(lambda m, b: m(b))(Model(op), b),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("garbage", [0.0, np.nan, np.inf])
def test_values(call, garbage):
    out = call(PairLoss(config()), dirty(garbage))
    np.testing.assert_allclose(out["joint"], expected(), rtol=1e-5)
    np.testing.assert_array_equal(out.presence["joint"], ROWS)
    assert out.batch_state["count"] == 3
    np.testing.assert_allclose(out.mean("joint"), expected()[ROWS].mean(), rtol=1e-5)


@pytest.mark.parametrize("garbage", [0.0, np.nan, np.inf])
def test_gradients(garbage):
    op, batch = PairLoss(config()), dirty(garbage)

    def loss(op, data):
        return op(batch.replace(data=data)).mean("joint")

    by_op, by_data = nnx.grad(loss, argnums=(0, 1))(op, batch.data)
    clean, _ = nnx.grad(loss, argnums=(0, 1))(op, dirty(0.0).data)
    assert by_op["scale"][...] == clean["scale"][...] != 0
    for x in by_data.values():
        assert (np.asarray(x)[~ROWS] == 0).all()
        assert np.isfinite(x).all()
        assert np.asarray(x)[ROWS].any()
    jitted = nnx.jit(lambda op, d: nnx.grad(loss)(op, d))(op, batch.data)
    np.testing.assert_allclose(jitted["scale"][...], by_op["scale"][...], rtol=1e-5)


def test_the_batch_is_kept():
    index, epoch = np.arange(6, dtype=np.uint32), np.uint32(2)
    meta = [{"key": i} for i in range(6)]
    states = {"n": jnp.arange(6)}
    batch = dirty(np.nan).replace(record_index=index, epoch=epoch, metadata=meta, states=states)
    out = PairLoss(config())(batch)
    for name in ("valid_mask", "record_index", "epoch", "metadata"):
        assert getattr(out, name) is getattr(batch, name)
    assert out.states["n"] is states["n"]
    assert all(out[name] is batch[name] for name in batch)


def test_apply_sees_no_batch_and_apply_batch_sees_zeros():
    class Looking(CrossModalOperator):
        def apply_batch(self, batch, stats=None):
            found = jnp.isfinite(batch["image"]).all() & jnp.isfinite(batch["text"]).all()
            return batch.replace(batch_state={"finite": found})

    assert Looking(config())(dirty(np.nan)).batch_state["finite"]


def test_presence_that_it_sets():
    class Some(CrossModalOperator):
        def apply_batch(self, batch, stats=None):
            data = self._store_outputs(batch.data, [batch["image"]])
            there = jnp.arange(batch.batch_size) % 2 == 0
            return batch.replace(data=data, presence={**batch.presence, "joint": there})

    even = np.arange(6) % 2 == 0
    np.testing.assert_array_equal(Some(config())(records()).presence["joint"], even)
    np.testing.assert_array_equal(Some(config())(dirty(np.nan)).presence["joint"], even & ROWS)


@pytest.mark.parametrize("jit", [False, True])
def test_a_mutated_variable_is_kept(jit):
    op = Queue(config("image"))
    call = nnx.jit(lambda op, b: op(b)) if jit else (lambda op, b: op(b))
    sums = []
    for seed in range(3):
        batch = Batch.from_parts(arrays(seed=seed))
        out = call(op, batch)
        assert out["joint"][0] == (sums[-1] if sums else 0)
        sums.append(np.asarray(op.last[...]))
        assert sums[-1] == pytest.approx(float(batch["image"].sum()), abs=1e-5)
    assert counts(op) == (18, 0)


def test_statistics_reach_it():
    class Shifted(CrossModalOperator):
        def apply_batch(self, batch, stats=None):
            return batch.replace(
                data=self._store_outputs(batch.data, [batch["image"] - stats["mean"]])
            )

    op = Shifted(config("image", precomputed_stats={"mean": np.float32(2)}))
    np.testing.assert_allclose(op(records())["joint"], records()["image"] - 2, rtol=1e-6)
    op = Shifted(config("image", batch_stats_fn=lambda d: {"mean": d["image"].mean()}))
    assert abs(float(op(records())["joint"].mean())) < 1e-6


def test_it_may_call_the_default():
    class Both(CrossModalOperator):
        def apply(self, data, state, metadata, random_params=None, stats=None):
            return self._store_outputs(data, [data["image"]]), state, metadata

        def apply_batch(self, batch, stats=None):
            out = super().apply_batch(batch, stats)
            return out.replace(batch_state={"sum": out["joint"].sum()})

    out = Both(config("image"))(records())
    assert out.batch_state["sum"] == pytest.approx(float(records()["image"].sum()), abs=1e-5)


def test_rows_that_change_place_or_number_lose_their_metadata():
    class Reversed(CrossModalOperator):
        def apply_batch(self, batch, stats=None):
            return jax.tree.map(lambda x: x[::-1], batch)

    class Half(CrossModalOperator):
        def apply_batch(self, batch, stats=None):
            return jax.tree.map(lambda x: x[:3], batch)

    index = np.arange(6, dtype=np.uint32)
    batch = records(record_index=index, metadata=[{"key": i} for i in range(6)])
    assert Reversed(config())(batch).metadata is None
    assert Half(config())(batch).metadata is None
    assert Half(config())(batch).batch_size == 3


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_empty_batch(call):
    out = call(PairLoss(config()), records(0))
    assert out["joint"].shape == (0,)
    assert out.batch_state["count"].shape == ()


def test_an_empty_batch_keeps_and_widens_batch_state():
    op = PairLoss(config())
    out = op(records(0, batch_state={"before": jnp.float32(3)}))
    assert set(out.batch_state) == {"count"}  # as for any other batch: it replaces them

    class Adds(PairLoss):
        def apply_batch(self, batch, stats=None):
            out = super().apply_batch(batch, stats)
            return out.replace(batch_state={**batch.batch_state, **out.batch_state})

    out = Adds(config())(records(0, batch_state={"before": jnp.float32(3)}))
    assert out.batch_state["before"] == 3
    assert out.batch_state["count"] == 0


class Overwrite(CrossModalOperator):
    """Writes a field that it does not read, in all rows."""

    def apply_batch(self, batch, stats=None):
        return batch.replace(data={**batch.data, "other": batch["image"] * 2})


def test_a_field_written_anew_is_present_again():
    batch = records()
    absent = jnp.zeros(batch.batch_size, bool)
    batch = batch.replace(data={**batch.data, "other": batch["image"]}, presence={"other": absent})
    assert "other" not in Overwrite(config("image"))(batch).presence
    valid = jnp.arange(batch.batch_size) < 1
    out = Overwrite(config("image"))(batch.replace(valid_mask=valid))
    assert out.presence["other"].tolist() == valid.tolist()
