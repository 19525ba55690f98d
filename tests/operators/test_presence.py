"""Modality dropout: never the last one, the same for a record in any batch, off in eval."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core import Batch
from datarax.operators import ModalityDropout, ModalityDropoutConfig, Sequential

FIELDS = ["a", "b", "c"]


def dropout(rate, seed=1, rngs=None):
    config = ModalityDropoutConfig(
        input_fields=FIELDS,
        output_fields=FIELDS,
        rate=rate,
        stochastic=True,
        stream_name="dropout",
    )
    return ModalityDropout(config, rngs=rngs or nnx.Rngs(0, dropout=seed))


def batch(rows, index=None, **parts):
    data = {name: jnp.ones((rows, 2)) for name in FIELDS}
    index = np.arange(rows, dtype=np.uint32) if index is None else index
    return Batch.from_parts(data, record_index=index, **parts)


def masks(out):
    return np.stack([np.asarray(out.presence[name]) for name in FIELDS], axis=1)


def test_rate_and_the_last_one():
    rows = 4000
    there = masks(dropout(0.3)(batch(rows)))
    assert there.any(axis=1).all()
    # kept with 0.7, or chosen (1/3) when all three would go (0.027)
    assert there.mean() == pytest.approx(0.7 + 0.027 / 3, abs=0.02)
    only = masks(dropout(1.0)(batch(rows)))
    assert (only.sum(axis=1) == 1).all()
    np.testing.assert_allclose(only.mean(axis=0), 1 / 3, atol=0.03)


def test_absent_stays_absent_and_nothing_is_resurrected():
    absent = jnp.asarray(np.arange(50) % 2 == 0)
    out = dropout(1.0)(batch(50, presence={"a": ~absent, "b": jnp.zeros(50, bool)}))
    there = masks(out)
    assert not there[:, 1].any()
    assert not there[np.asarray(absent), 0].any()
    assert there.any(axis=1).all()


def test_rows_with_nothing_stay_empty():
    none = jnp.zeros(3, bool)
    assert not masks(dropout(0.5)(batch(3, presence=dict.fromkeys(FIELDS, none)))).any()


def test_a_record_draws_the_same_anywhere():
    op = dropout(0.5)
    whole = masks(op(batch(64)))
    order = np.random.default_rng(0).permutation(64).astype(np.uint32)
    np.testing.assert_array_equal(masks(op(batch(64, order))), whole[order])
    np.testing.assert_array_equal(masks(op(batch(5, order[:5]))), whole[order[:5]])
    assert (masks(op(batch(64, epoch=1))) != whole).any()
    assert (masks(dropout(0.5, seed=2)(batch(64))) != whole).any()


def test_values_are_handed_through_and_eval_turns_it_off():
    op, records = dropout(0.9), batch(8)
    out = op(records)
    assert all(out[name] is records[name] for name in FIELDS)
    op.eval()
    assert op(records).presence == {}
    op.train()
    assert op(records).presence.keys() == set(FIELDS)


def test_in_a_sequence_it_needs_its_stream():
    rngs = nnx.Rngs(0, dropout=1)  # two operators on one stream draw different numbers
    chain = Sequential([dropout(0.5, rngs=rngs), dropout(0.5, rngs=rngs)])
    assert chain.requires_rng_streams() == ["dropout"]
    once, twice = masks(dropout(0.5)(batch(500))), masks(chain(batch(500)))
    assert twice.sum() < once.sum()
    chain(batch(500))
    assert chain.operators[0].get_operation_stats()["applied_count"] == 1000
