"""Operators of attention: dropout by record, media that are absent, and what they refuse."""

import jax.numpy as jnp
import numpy as np
import pytest
from attention_rows import ROWS, OpenGates
from flax import nnx
from operator_row import batch_of

from datarax.core.element_batch import Batch
from datarax.operators import build_operator

PAIR = {"input_fields": ["a", "b"], "output_fields": ["c"], "features": {"a": 4, "b": 3}}
PAIR |= {"num_heads": 2}
ONE = {"input_fields": ["a"], "output_fields": ["c"], "features": {"a": 4}, "num_heads": 2}
CROSS = PAIR | {"operation": "cross_attention"}
POOL = ONE | {"operation": "attention_pool"}
CO = PAIR | {"operation": "co_attention", "output_fields": ["c", "d"]}
FORMER = PAIR | {"operation": "q_former", "query_features": 6}
LATENT = PAIR | {"operation": "latent_fusion", "out_features": 2}


def test_a_record_drops_the_same_weights_in_any_batch_and_none_under_eval():
    row = ROWS["cross attention with positions"]
    op, batch = row.make(), batch_of(row)
    out = op(batch)["attended"]
    half = {name: x[3:] for name, x in batch.data.items()}
    part = op(batch.replace(data=half, record_index=batch.record_index[3:]))
    np.testing.assert_allclose(part["attended"], out[3:], rtol=1e-5, atol=1e-6)
    later = op(batch.replace(epoch=jnp.uint32(1)))["attended"]
    assert not np.allclose(later, out)
    op.eval()
    sure = op(batch)["attended"]
    assert not np.allclose(sure, out)
    np.testing.assert_array_equal(op(batch.replace(epoch=jnp.uint32(1)))["attended"], sure)


def test_text_without_media_passes_on():
    row = ROWS["gated cross attention"]
    op, batch = row.make(), batch_of(row)
    assert isinstance(op, OpenGates)
    media = batch["media"].at[1].set(jnp.nan)
    there = jnp.arange(6) != 1
    absent = batch.replace(data=batch.data | {"media": media}, presence={"media": there})
    out = op(absent)
    assert "seen" not in out.presence or bool(out.presence["seen"].all())
    assert np.isfinite(np.asarray(out["seen"])).all()
    assert np.asarray(out["seen"])[1].any()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (CROSS | {"dropout": 0.1}, "dropout above 0 draws and needs stochastic=True"),
        (CROSS | {"stochastic": True, "stream_name": "d"}, "got dropout=0.0, stochastic=True"),
        (CROSS | {"dropout": 1.5}, "dropout must be a number"),
        (CROSS | {"num_kv_heads": 3}, "num_kv_heads must divide num_heads 2, got 3"),
        (CROSS | {"qk_norm": "batch"}, "qk_norm must be one of .*'rms'.* got 'batch'"),
        (CROSS | {"gate": "sigmoid"}, "gate must be one of .*'tanh'.* got 'sigmoid'"),
        (CROSS | {"query_positions": "p"}, "go together, got 'p' and None"),
        (CROSS | {"query_mask": 3}, "query_mask must be the name of a field, got 3"),
        (CROSS | {"use_bias": 1}, "use_bias must be True or False, got 1"),
        (POOL | {"mask": ""}, "mask must be the name of a field, got ''"),
        (LATENT | {"masks": {"a": ""}}, r"masks\['a'\] must be the name of a field, got ''"),
        (CROSS | {"rope_base": 100.0}, "rope_base=100.0 is read with query_positions"),
        (
            CROSS | {"query_positions": "p", "context_positions": "r", "head_dim": 3},
            "even head_dim, got 3",
        ),
        (PAIR | {"operation": "gated_cross_attention", "immediate_only": False}, "immediate_only"),
        (POOL | {"num_queries": 0}, "num_queries must be a positive integer, got 0"),
        (POOL | {"num_times": 2}, "num_times=2 is read with depth above 1 only"),
        (CO | {"method": "shared"}, "method must be one of .*'shared_similarity'.* got 'shared'"),
        (CO | {"masks": {"z": "m"}}, r"masks name \['z'\], which are no input fields"),
        (
            CO | {"method": "shared_similarity", "include_self": True},
            r"include_self=True is read by \['all_pairs'\] only",
        ),
        (ONE | {"operation": "co_attention"}, "takes two or more input_fields"),
        (FORMER, r"features\['b'\] must be query_features 6, got 3"),
        (LATENT | {"num_outputs": 2}, "num_outputs=2 is read by decode 'queries' only"),
        (LATENT | {"decode": "max"}, "decode must be one of .*'mean'.* got 'max'"),
        (LATENT | {"num_heads": 3}, "num_heads 3 does not divide"),
    ],
)
def test_refuses(table, message):
    with pytest.raises(ValueError, match=message):
        build_operator(table, rngs=nnx.Rngs(0, d=1))


A, B = jnp.ones((5, 3, 4)), jnp.ones((5, 2, 3))


@pytest.mark.parametrize(
    ("table", "data", "error", "message"),
    [
        (CROSS, {"a": A.astype(int)}, TypeError, "field 'a' must be floating point, got int32"),
        (CROSS, {"b": A}, ValueError, r"'b' must have shape \[n, ..., 3\] by features.* 3, 4\]"),
        (POOL, {"a": A[..., 0]}, ValueError, r"'a' must have shape \[n, ..., 4\] by features"),
        (
            CO | {"masks": {"a": "m"}},
            {"m": jnp.ones((5, 3))},
            TypeError,
            "field 'm' must be boolean",
        ),
        (
            LATENT | {"masks": {"b": "m"}},
            {"m": jnp.ones((5, 3), bool)},
            ValueError,
            r"field 'm' must have shape \(2,\), got \(3,\)",
        ),
    ],
)
def test_a_batch_that_does_not_fit(table, data, error, message):
    op = build_operator(table, rngs=nnx.Rngs(0))
    with pytest.raises(error, match=message):
        op(Batch.from_parts({"a": A, "b": B} | data))
