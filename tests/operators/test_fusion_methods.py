"""Every method of fusion from a table, what its config refuses, and learned missing fields."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core import Batch, CrossModalOperatorConfig
from datarax.operators import (
    FusionOperator,
    FusionOperatorConfig,
    MissingModalityEmbedding,
    MissingModalityEmbeddingConfig,
    Sequential,
    build_operator,
)
from datarax.operators.fusion_methods import METHODS

TWO = {"input_fields": ["a", "b"], "output_fields": ["joint"]}
PAIR = TWO | {"features": {"a": 4, "b": 3}, "out_features": 8}
THREE = {
    "input_fields": ["a", "b", "c"],
    "output_fields": ["joint"],
    "features": {"a": 4, "b": 3, "c": 2},
    "out_features": 8,
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_from_a_table_with_its_defaults(method):
    table = PAIR if METHODS[method].fields == (2, 2) else THREE
    op = build_operator({"operation": "fusion", "method": method, **table}, rngs=nnx.Rngs(0))
    spec = {f: jax.ShapeDtypeStruct((w,), jnp.float32) for f, w in table["features"].items()}
    assert op.output_spec(spec)["joint"].shape == (8,)
    half = {f: jax.ShapeDtypeStruct((w,), jnp.bfloat16) for f, w in table["features"].items()}
    assert op.output_spec(half)["joint"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "gate", **THREE}, "'gate' takes exactly 2 input_fields, got 3"),
        ({"method": "tucker", **THREE}, "'tucker' takes exactly 2 input_fields, got 3"),
        (
            {"method": "mlb", "input_fields": ["a"], "features": {"a": 4}},
            "'mlb' takes at least 2 input_fields, got 1",
        ),
        ({"method": "mutan", "conditioner": "a"}, r"conditioner='a' is read by \['gate', 'film'"),
        ({"method": "film", "conditioner": "c"}, r"conditioner must be one of \['a', 'b'\].*'c'"),
        ({"method": "mlb", "rank": 2}, "rank=2 is read by .* only, got 'mlb'"),
        ({"method": "mfb", "rank": 0}, "rank must be a positive integer, got 0"),
        ({"method": "mfb", "normalize": "chunks"}, "'chunks' is read by block only, got 'mfb'"),
        ({"method": "mfb", "normalize": "l2"}, "normalize must be one of"),
        ({"method": "mfb", "activation": "gelu"}, "activation must be one of"),
        ({"method": "block", "chunks": 9}, "chunks must be at most hidden_features 8, got 9"),
        ({"method": "transformer", "num_heads": 3}, "num_heads 3 does not divide the width 8"),
        ({"method": "transformer", "readout": "max"}, "readout must be one of"),
        ({"method": "transformer", "token_masks": {"c": "keep"}}, r"token_masks must map fields"),
        ({"method": "transformer", "token_masks": {"a": 3}}, r"token_masks must map fields"),
        ({"method": "bottleneck", "fusion_layer": 3}, "from 0 to depth 2, got 3"),
        ({"method": "bottleneck", "fusion_layer": 0.5}, "an integer from 0 to depth 2, got 0.5"),
        ({"method": "product_of_experts", "eps": -1.0}, "eps must be a number in"),
        ({"method": "multiplicative", "form": "cube"}, "form must be one of"),
        ({"method": "attention", "scores": "all"}, "scores must be one of"),
        ({"method": "sum", "output_fields": ["x", "y"]}, "output_fields must hold 1 fields, got 2"),
    ],
)
def test_config_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        FusionOperatorConfig(**(PAIR | options))


def batch(rows=4, **parts):
    rng = np.random.default_rng(0)
    shapes = {"a": (4,), "b": (5, 3)}
    data = {n: jnp.asarray(rng.normal(size=(rows, *s)), jnp.float32) for n, s in shapes.items()}
    data["keep"] = jnp.asarray([[True, True, False, True, False]] * (rows - 1) + [[False] * 5])
    return Batch.from_parts(data, **parts)


def test_tokens_that_are_not_kept_are_as_if_they_were_not_there():
    options = PAIR | {"method": "transformer", "depth": 1}
    masked = FusionOperator(
        FusionOperatorConfig(**options, token_masks={"b": "keep"}), rngs=nnx.Rngs(0)
    )
    plain = FusionOperator(FusionOperatorConfig(**options), rngs=nnx.Rngs(0))
    whole = batch(presence={"a": jnp.asarray([True, True, True, False])})
    dirty = jnp.where(whole["keep"][..., None], whole["b"], jnp.nan)
    short = whole.replace(data=whole.data | {"b": whole["b"][:, jnp.asarray([0, 1, 3])]})
    out = masked(whole.replace(data=whole.data | {"b": dirty}))
    np.testing.assert_allclose(out["joint"][:3], plain(short)["joint"][:3], rtol=1e-5, atol=1e-6)
    # The last record has neither the vector nor a kept token.
    assert out.presence["joint"].tolist() == [True, True, True, False]
    assert not np.any(np.asarray(out["joint"][3]))
    with pytest.raises(KeyError, match="'keep'"):
        masked(whole.replace(data={n: x for n, x in whole.data.items() if n != "keep"}))


@pytest.mark.parametrize("shape", [(), (3, 4)])
def test_only_methods_of_tokens_take_them(shape):
    fields = {name: PAIR[name] for name in ("input_fields", "output_fields")}
    plain = FusionOperator(CrossModalOperatorConfig(**fields))
    x = jnp.ones((2, *shape))
    message = (
        rf"'a' must be a vector \[d\] .* got shape {re.escape(str(shape))}: only transformer and"
    )
    with pytest.raises(ValueError, match=message):
        plain(Batch.from_parts({"a": x, "b": x}))


def test_the_log_variance_of_experts_is_a_second_output():
    fields = PAIR | {"output_fields": ["mean", "variance"]}
    config = FusionOperatorConfig(**fields, method="product_of_experts")
    op = FusionOperator(config, rngs=nnx.Rngs(0))
    x = batch(presence={"a": jnp.asarray([True, False, True, False])})
    x = x.replace(data={"a": x["a"], "b": x["b"][:, 0]}, presence=dict(x.presence))
    out = op(x)
    assert np.all(np.asarray(out["variance"]) < 0)  # the prior alone has 0
    assert out["mean"].shape == out["variance"].shape == (4, 8)
    one = op.fusion([x["a"][0], x["b"][0]])
    np.testing.assert_allclose(out["variance"][0], one[1], rtol=1e-5, atol=1e-6)


def missing(mark_present=True, **options):
    config = MissingModalityEmbeddingConfig(
        **{"input_fields": ["a", "b"], "output_fields": ["a", "b"]}
        | {"features": {"a": 4, "b": [5, 3]}, "mark_present": mark_present}
        | options
    )
    return MissingModalityEmbedding(config, rngs=nnx.Rngs(0))


A, B = np.array([True, False, True, False]), np.array([True, True, False, False])


def absent_batch(**parts):
    clean = batch(presence={"a": jnp.asarray(A), "b": jnp.asarray(B)}, **parts)
    data = {
        "a": jnp.where(A[:, None], clean["a"], jnp.nan),
        "b": jnp.where(B[:, None, None], clean["b"], jnp.inf),
    }
    return clean.replace(data=clean.data | data), clean


@pytest.mark.parametrize("mark_present", [True, False])
def test_absent_fields_become_the_learned_arrays(mark_present):
    op = missing(mark_present)
    dirty, clean = absent_batch()
    out = op(dirty)
    for name, there, learned in zip("ab", (A, B), op.embeddings, strict=True):
        filled = np.asarray(out[name])
        np.testing.assert_array_equal(filled[there], clean[name][there])
        np.testing.assert_array_equal(filled[~there], np.stack([learned[...]] * 2))
        marks = out.presence[name].tolist()
        assert marks == ([True] * 4 if mark_present else there.tolist())


def test_the_learned_array_learns_from_the_records_that_lack_the_field():
    op, (dirty, _) = missing(), absent_batch(valid_mask=jnp.asarray([True, True, True, False]))

    def total(op, data):
        out = op(dirty.replace(data=dirty.data | data))
        return jnp.sum(out["a"] * jnp.arange(1.0, 5.0)[:, None]) + jnp.sum(out["b"])

    data = {"a": dirty["a"], "b": dirty["b"]}
    gradients, by_data = nnx.grad(total, argnums=(0, 1))(op, data)
    # Row 1 alone: row 3 is not valid.
    np.testing.assert_array_equal(gradients.embeddings[0][...], np.full(4, 2.0))
    np.testing.assert_array_equal(gradients.embeddings[1][...], np.ones((5, 3)))
    assert not np.any(np.asarray(by_data["a"])[~A])
    assert not np.any(np.asarray(by_data["b"])[~B])


def test_operators_after_it_read_what_was_filled():
    fuse = FusionOperatorConfig(**PAIR, method="transformer", depth=1)
    fusion = FusionOperator(fuse, rngs=nnx.Rngs(1))
    dirty, _ = absent_batch()
    filled = Sequential([missing(), fusion])(dirty)["joint"]
    left_out = Sequential([missing(mark_present=False), fusion])(dirty)["joint"]
    assert np.all(np.any(np.asarray(filled) != 0, axis=1))
    np.testing.assert_allclose(left_out, fusion(dirty)["joint"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": {"a": 4}}, r"shape of each of \['a', 'b'\]"),
        ({"features": {"a": 4, "b": [0, 3]}}, r"features\['b'\] must be a positive integer, got 0"),
        ({"mark_present": 1}, "mark_present must be a bool, got 1"),
        ({"output_fields": ["c", "d"]}, r"output_fields must be \['a', 'b'\]"),
    ],
)
def test_missing_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        missing(**options)


def test_missing_refuses_other_fields():
    with pytest.raises(ValueError, match=r"field 'b' must have the shape \[3, 3\] that features"):
        missing(features={"a": 4, "b": [3, 3]})(batch())
    integers = batch().replace(data=batch().data | {"a": jnp.ones((4, 4), jnp.int32)})
    with pytest.raises(TypeError, match="field 'a' must be floating point to be filled, got int32"):
        missing()(integers)
    plain = MissingModalityEmbeddingConfig(
        input_fields=["a"], output_fields=["a"], features={"a": 4}
    )
    with pytest.raises(ValueError, match="give rngs"):
        MissingModalityEmbedding(plain)
