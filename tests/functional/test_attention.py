"""Masks, biases and errors of attention."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datarax.functional import dot_product_attention

bare = inspect.unwrap(dot_product_attention)


def tokens(t=3, s=5, h=2, d=4, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(t, h, d), (s, h, d), (s, h, d)]
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def test_a_query_that_sees_nothing_is_zero_and_may_hold_nan():
    q, k, v = tokens()
    mask = jnp.ones((3, 5), bool).at[1].set(False)

    def objective(q, k, v):
        out = dot_product_attention(q, k, v, mask=mask)
        return jnp.sum(out**2), out

    gradients, out = jax.grad(objective, (0, 1, 2), has_aux=True)(q.at[1].set(jnp.nan), k, v)
    assert not out[1].any()
    assert not gradients[0][1].any()
    assert out[0].any()
    assert all(jnp.isfinite(g).all() for g in gradients)


def test_weights_sum_to_one_over_what_is_seen():
    q, k, v = tokens()
    mask = jnp.tril(jnp.ones((3, 5), bool))
    out, weights = dot_product_attention(q, k, v, mask=mask, return_weights=True)
    assert weights.shape == (2, 3, 5)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    assert not weights[:, ~mask].any()
    np.testing.assert_allclose(out, jnp.einsum("hts,she->the", weights, v), rtol=1e-5, atol=1e-6)


def test_a_bias_of_minus_infinity_is_a_mask():
    q, k, v = tokens()
    mask = jnp.ones((3, 5), bool).at[1].set(False).at[0, 2].set(False)
    bias = jnp.where(mask, 0.0, -jnp.inf)
    expected = dot_product_attention(q, k, v, mask=mask)
    np.testing.assert_allclose(dot_product_attention(q, k, v, bias=bias), expected, atol=1e-6)
    slope = jax.grad(lambda q: dot_product_attention(q, k, v, bias=bias).sum())(q)
    assert jnp.isfinite(slope).all()


def test_a_key_that_the_bias_hides_from_all_may_hold_nan():
    q, k, v = tokens()
    bias = jnp.zeros((3, 5)).at[:, 2].set(-jnp.inf)

    def objective(k, v):
        return jnp.sum(dot_product_attention(q, k, v, bias=bias) ** 2)

    run = jax.jit(jax.value_and_grad(objective, (0, 1)))
    expected, got = run(k, v), run(k.at[2].set(jnp.nan), v.at[2].set(jnp.inf))
    jax.tree.map(np.testing.assert_allclose, got, expected)


def test_scale_replaces_one_over_the_root_of_the_width():
    q, k, v = tokens()
    np.testing.assert_allclose(
        dot_product_attention(q, k, v, scale=1.0), dot_product_attention(2 * q, k, v), rtol=1e-5
    )


def test_a_mask_a_head():
    q, k, v = tokens()
    mask = jnp.ones((2, 3, 5), bool).at[1].set(False)
    out = dot_product_attention(q, k, v, mask=mask)
    assert not out[:, 1].any()
    np.testing.assert_allclose(out[:, 0], dot_product_attention(q, k, v)[:, 0], rtol=1e-6)


def test_half_precision_softmax_is_float32():
    q, k, v = (x.astype(jnp.bfloat16) for x in tokens())
    out, weights = dot_product_attention(q, k, v, return_weights=True)
    assert (out.dtype, weights.dtype) == (jnp.bfloat16, jnp.float32)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"key": (5, 3, 4)},
            ValueError,
            r"expected query .*got query \(3, 2, 4\), key \(5, 3, 4\)",
        ),
        ({"key": (5, 2, 3)}, ValueError, "expected query"),
        ({"value": (4, 2, 4)}, ValueError, "expected query"),
        ({"query": (2, 4)}, ValueError, r"query must have shape \[..., length, heads, width\]"),
        ({"query": (7, 3, 2, 4)}, ValueError, "expected query"),
    ],
)
def test_shapes_that_do_not_fit(changes, error, message):
    names = ("query", "key", "value")
    arrays = dict(zip(names, tokens(), strict=True))
    arrays |= {name: jnp.zeros(shape) for name, shape in changes.items()}
    with pytest.raises(error, match=message):
        bare(*arrays.values())


def test_masks_that_do_not_fit():
    q, k, v = tokens()
    with pytest.raises(TypeError, match="mask must be boolean"):
        bare(q, k, v, mask=jnp.ones((3, 5)))
    with pytest.raises(ValueError, match=r"mask of shape \(5, 3\) does not broadcast to \(2, 3, 5"):
        bare(q, k, v, mask=jnp.ones((5, 3), bool))
    with pytest.raises(ValueError, match=r"bias of shape \(4,\) does not broadcast"):
        bare(q, k, v, bias=jnp.ones(4))
    with pytest.raises(TypeError, match="bias must be floating point, got bool"):
        bare(q, k, v, bias=jnp.ones((3, 5), bool))
    with pytest.raises(TypeError, match="value must be floating point, got int32"):
        bare(q, k, v.astype(jnp.int32))
