"""The queue of the contrastive operator: what it contrasts with, when it changes, and how."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax import functional
from datarax.core import Batch
from datarax.operators import ContrastiveOperator, ContrastiveOperatorConfig

CLIP = 1 / 0.07
N = 4


def normal(*shape, seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def operator(**options):
    config = ContrastiveOperatorConfig(
        input_fields=["a", "b"],
        output_fields=["loss"],
        features={"a": 3, "b": 3},
        **({"queue_size": 6} | options),
    )
    return ContrastiveOperator(config)


def records(seed, presence=None, ids=None):
    data = {"a": normal(N, 3, seed=seed), "b": normal(N, 3, seed=seed + 100)}
    data |= {} if ids is None else {"id": jnp.asarray(ids, jnp.int32)}
    return Batch.from_parts(data, presence=presence)


def units(batch):
    return [np.asarray(functional.safe_l2_normalize(batch[name])) for name in "ab"]


def info_nce(batch, past_a, past_b, **options):
    a, b = units(batch)
    extra = {"negatives_a": jnp.asarray(past_a), "negatives_b": jnp.asarray(past_b)}
    return functional.info_nce(jnp.asarray(a), jnp.asarray(b), logit_scale=CLIP, **extra, **options)


def test_it_contrasts_with_the_past_and_never_with_its_initial_content():
    op, batches = operator(), [records(seed) for seed in range(4)]
    past_a, past_b = np.zeros((0, 3)), np.zeros((0, 3))
    for batch in batches:
        out = op(batch)
        expected = info_nce(batch, past_a.astype(np.float32), past_b.astype(np.float32))
        np.testing.assert_allclose(out["loss"], expected, rtol=2e-5, atol=1e-6)
        a, b = units(batch)
        past_a, past_b = np.concatenate([past_a, a])[-6:], np.concatenate([past_b, b])[-6:]
        assert int(out.batch_state["loss"]["queue_size"]) == len(past_a)


def test_a_row_knows_its_own_copy_and_its_kin_by_their_ids():
    op = operator(ids_field="id", enqueue="before", queue_size=8)
    past, batch = records(1, ids=[3, 9, 5, 2]), records(0, ids=[3, 5, 5, 7])
    op(past)
    a, b = (np.concatenate(parts) for parts in zip(units(past), units(batch), strict=True))
    held = jnp.concatenate([past["id"], batch["id"]])
    expected = info_nce(batch, a, b, ids=batch["id"], negatives_ids=held)
    np.testing.assert_allclose(op(batch)["loss"], expected, rtol=2e-5)


def test_what_a_row_lacks_is_no_negative():
    op = operator()
    there = jnp.asarray([True, True, False, False])
    first, second = records(0, presence={"b": there}), records(1)
    op(first)
    a, b = units(first)
    past = {
        "a_to_b": {"negatives_b": jnp.asarray(b[:2])},
        "b_to_a": {"negatives_a": jnp.asarray(a)},
    }
    x, y = map(jnp.asarray, units(second))
    parts = [
        functional.info_nce(x, y, logit_scale=CLIP, directions=direction, **columns)
        for direction, columns in past.items()
    ]
    np.testing.assert_allclose(op(second)["loss"], (parts[0] + parts[1]) / 2, rtol=2e-5)


def test_rows_that_are_not_valid_do_not_enter():
    op = operator()
    valid = jnp.asarray([True, False, True, True])
    dirty = jax.tree.map(lambda x: jnp.where(valid[:, None], x, jnp.nan), records(0).data)
    op(Batch.from_parts(dirty, valid_mask=valid))
    assert int(op.queue.size) == 3
    assert np.isfinite(op.queue.embeddings(0)).all()


def test_eval_contrasts_but_does_not_enqueue():
    op = operator()
    op(records(0))
    before = np.asarray(op.queue.embeddings(0))
    op.eval()
    first, second = op(records(1)), op(records(1))
    np.testing.assert_array_equal(first["loss"], second["loss"])
    np.testing.assert_array_equal(op.queue.embeddings(0), before)
    a, b = units(records(0))
    np.testing.assert_allclose(first["loss"], info_nce(records(1), a, b), rtol=2e-5)


def test_it_is_never_served_from_the_cache_while_it_learns():
    op, batch = operator(cacheable=True), records(0)
    first, second = op(batch)["loss"], op(batch)["loss"]
    assert np.abs(np.asarray(first - second)).max() > 1e-3
    assert int(op.queue.size) == 6


def test_nnx_transforms_carry_it():
    eager, traced, trained = operator(), operator(), operator()
    jitted = nnx.jit(lambda op, batch: op(batch)["loss"])
    grad = nnx.jit(nnx.value_and_grad(lambda op, batch: op(batch).mean("loss")))
    for seed in range(3):
        expected = eager(records(seed))["loss"]
        np.testing.assert_allclose(jitted(traced, records(seed)), expected, rtol=2e-5)
        value, grads = grad(trained, records(seed))
        assert float(value) == pytest.approx(float(jnp.mean(expected)), rel=1e-5)
        assert len(jax.tree.leaves(grads)) == 1  # the scale alone
    for op in (traced, trained):
        np.testing.assert_allclose(op.queue.embeddings(1), eager.queue.embeddings(1), rtol=1e-5)


def test_a_plain_jit_leaves_it_as_it_is():
    op = operator()
    op(records(0))
    before = np.asarray(op.queue.embeddings(0))
    loss = jax.jit(lambda batch: op(batch)["loss"])(records(1))
    a, b = units(records(0))
    np.testing.assert_allclose(loss, info_nce(records(1), a, b), rtol=2e-5)
    np.testing.assert_array_equal(op.queue.embeddings(0), before)


def test_its_state_is_saved_and_restored():
    op, other = operator(), operator()
    op(records(0))
    other.set_state(op.get_state())
    np.testing.assert_allclose(op(records(1))["loss"], other(records(1))["loss"], rtol=1e-6)
