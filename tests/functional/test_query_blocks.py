"""Attention in blocks of queries against the dense form: values, gradients, masks, dropout."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datarax.functional import dot_product_attention
from datarax.functional.attention.query_blocks import choose_chunk

bare = inspect.unwrap(dot_product_attention)
T, S, H, D, E = 7, 5, 4, 4, 3


def arrays(dtype, *, leading=(2,), heads=2, bias=None, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(*leading, T, H, D), (*leading, S, heads, D), (*leading, S, heads, E)]
    inputs = [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]
    inputs.append(None if bias is None else jnp.asarray(rng.normal(size=bias), dtype))
    return inputs, jnp.asarray(rng.normal(size=(*leading, T, H, E)), dtype)


def some(*shape):
    mask = np.random.default_rng(5).random(shape) < 0.6
    mask[..., :1, :] = False
    return jnp.asarray(mask)


def value_and_gradients(inputs, cotangent, **options):
    """Of query, key, value and bias; 4 of 7 queries at once, so that the last block is shorter."""

    def run(inputs, cotangent):
        q, k, v, bias = inputs
        attend = partial(dot_product_attention, **options)
        out, back = jax.vjp(lambda q, k, v, bias: attend(q, k, v, bias=bias), q, k, v, bias)
        return out, back(cotangent)

    return jax.tree.leaves(jax.jit(run)(inputs, cotangent))


CASES = {
    "plain": ({}, {}),
    "mask of each query, bias of each head": (
        {"bias": (H, T, S)},
        {"mask": some(2, 1, T, S)},
    ),
    "mask of the keys, bias of the keys": ({"bias": (H, 1, S)}, {"mask": some(3, S)[2]}),
    "bias of the records, one key head, scale": (
        {"bias": (2, 1, T, 1), "heads": 1},
        {"mask": some(H, T, 1), "scale": 0.7},
    ),
    "dropout, no leading axis": (
        {"leading": (), "heads": H},
        {"dropout": 0.3, "rng_key": jax.random.key(3)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_blocks_are_the_dense_form(name):
    shapes, options = CASES[name]
    with jax.enable_x64(True):
        case = arrays(jnp.float64, **shapes)
        found = value_and_gradients(*case, chunk=4, **options)
        expected = value_and_gradients(*case, chunk=T, **options)
    assert len(found) == (5 if "bias" in shapes else 4)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-10)
    assert all(np.any(np.asarray(x)) for x in found)


@pytest.mark.parametrize(("dtype", "limit"), [(jnp.float32, 1e-6), (jnp.bfloat16, 2e-2)])
def test_narrow_blocks_are_near_float64(dtype, limit):
    case = arrays(dtype, bias=(H, T, S))
    found = value_and_gradients(*case, chunk=4)
    assert all(x.dtype == dtype for x in found)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: x.astype(jnp.float64), case)
        expected = value_and_gradients(*wide, chunk=T)
    for x, y in zip(found, expected, strict=True):
        exact = np.asarray(y)
        assert np.max(np.abs(np.asarray(x, np.float64) - exact)) < limit * np.max(np.abs(exact))


def test_masked_garbage_reaches_nothing_and_an_empty_row_is_zero():
    mask = jnp.ones((T, S), bool).at[:, 2].set(False).at[5].set(False)
    (q, k, v, _), cotangent = arrays(jnp.float32)
    clean = value_and_gradients([q, k, v, None], cotangent, mask=mask, chunk=4)
    dirty = [q.at[:, 5].set(jnp.nan), k.at[:, 2].set(jnp.inf), v.at[:, 2].set(jnp.nan), None]
    found = value_and_gradients(dirty, cotangent, mask=mask, chunk=4)
    for x, y in zip(found, clean, strict=True):
        np.testing.assert_array_equal(x, y)
    out, of_query, of_key, of_value = found
    assert not out[:, 5].any()
    assert not of_query[:, 5].any()
    assert not of_key[:, 2].any()
    assert not of_value[:, 2].any()
    assert out[:, 6].any()


def test_a_bias_of_minus_infinity_masks_a_block():
    (q, k, v, bias), cotangent = arrays(jnp.float32, bias=(T, S))
    mask = jnp.ones((T, S), bool).at[1].set(False).at[4, 2].set(False)
    found = value_and_gradients([q, k, v, jnp.where(mask, bias, -jnp.inf)], cotangent, chunk=4)
    expected = value_and_gradients([q, k, v, bias], cotangent, mask=mask, chunk=T)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    assert not found[4][~mask].any()


def test_what_fills_the_last_block_overflows_under_no_bias():
    (q, k, v, _), cotangent = arrays(jnp.float32)
    bias = jnp.full((H, 1, S), 100.0)
    found = value_and_gradients([q, k, v, bias], cotangent, chunk=4)
    expected = value_and_gradients([q, k, v, bias], cotangent, chunk=T)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-4)


def test_gradient_of_gradient_and_map_go_through_blocks():
    with jax.enable_x64(True):
        (q, k, v, _), _ = arrays(jnp.float64)

        def slope(chunk, q):
            def total(q, k, v):
                return jnp.sum(dot_product_attention(q, k, v, chunk=chunk) ** 2)

            of_value = jax.vmap(jax.grad(total, argnums=2))(q, k, v)
            return jnp.sum(jnp.sin(of_value))

        found, expected = (jax.jit(jax.grad(partial(slope, chunk)))(q) for chunk in (4, T))
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_dropout_keeps_the_mean_and_draws_each_query_anew():
    ones = jnp.ones((64, 1, 2))
    value = jnp.eye(64)[:, None]
    run = jax.jit(
        lambda key: bare(ones, ones, value, dropout=0.25, rng_key=key, chunk=16)[:, 0] * 64
    )
    factors = run(jax.random.key(0))
    np.testing.assert_allclose(np.unique(factors.round(4)), [0, 1.3333], atol=1e-3)
    assert abs(float(factors.mean()) - 1) < 0.05
    assert len(np.unique(factors, axis=0)) == 64
    assert len(np.unique(factors, axis=1).T) == 64


def test_few_logits_are_dense_and_many_are_not():
    assert choose_chunk((8, 32, 2048)) == 32
    assert choose_chunk((64, 8, 512, 512)) == 512
    assert choose_chunk((2, 8, 1024, 2048), budget=16 * 2**20) == 128
    assert choose_chunk((2, 8, 1024, 2048), itemsize=8, budget=16 * 2**20) == 64
    assert choose_chunk((64, 8, 4096, 4096), budget=16 * 2**20) == 32
    assert choose_chunk((1, 600, 600), budget=2**30) == 600
    assert choose_chunk((8, 1024, 2048), budget=16 * 2**20) == 64


def test_long_attention_never_holds_all_weights():
    q, k = (jax.ShapeDtypeStruct((2, n, 8, 16), jnp.float32) for n in (1024, 2048))

    def temporaries(chunk):
        def total(q, k):
            return jnp.sum(bare(q, k, k, chunk=chunk) ** 2)

        compiled = jax.jit(jax.grad(total, (0, 1))).lower(q, k).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    weights = 2 * 8 * 1024 * 2048 * 4
    assert temporaries(None) < 0.8 * weights
    assert temporaries(1024) > 2 * weights


@pytest.mark.parametrize(
    "options", [{"chunk": 0}, {"chunk": -1}, {"chunk": 4, "return_weights": True}]
)
def test_refuses_a_chunk(options):
    (q, k, v, _), _ = arrays(jnp.float32)
    with pytest.raises(ValueError, match=r"chunk must be at least 1 query, .*got chunk=-?\d"):
        bare(q, k, v, **options)


@pytest.mark.parametrize("chunk", [2.5, 4.0, "4", True])
def test_refuses_a_chunk_that_is_no_whole_number(chunk):
    (q, k, v, _), _ = arrays(jnp.float32)
    with pytest.raises(TypeError, match=f"chunk must be a whole number of queries, got {chunk!r}"):
        bare(q, k, v, chunk=chunk)
    assert bare(q, k, v, chunk=np.int64(4)).shape == (2, T, H, E)
