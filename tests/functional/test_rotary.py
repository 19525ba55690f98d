"""Errors of positions, masks of media and text, and of one similarity."""

import inspect

import jax.numpy as jnp
import pytest

from datarax import functional


def bare(function):
    return inspect.unwrap(function)


X = jnp.ones((3, 2, 4))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: bare(functional.rotary_embedding)(jnp.ones((3, 2, 3)), jnp.zeros(3)),
            ValueError,
            "head_dim must be even, got 3",
        ),
        (
            lambda: bare(functional.rotary_embedding)(X, jnp.zeros(2)),
            ValueError,
            r"positions must have shape \(3,\) or \(3,\), got \(2,\)",
        ),
        (
            lambda: bare(functional.rotary_embedding)(X, jnp.zeros(3), base=1.0),
            ValueError,
            "base must be above 1, got 1.0",
        ),
        (
            lambda: bare(functional.media_location_mask)(jnp.ones(3), 2),
            TypeError,
            "locations must be boolean, got float32",
        ),
        (
            lambda: bare(functional.media_location_mask)(jnp.ones(3, bool), 0),
            ValueError,
            "num_media of at least 1, got .* and 0",
        ),
        (
            lambda: bare(functional.query_text_mask)(1, 1, text_attention="full"),
            ValueError,
            "text_attention must be one of .*'causal'.* got 'full'",
        ),
        (
            lambda: bare(functional.query_text_mask)(-1, 1),
            ValueError,
            "must not be negative, got -1, 1",
        ),
        (
            lambda: bare(functional.rotary_embedding)(jnp.ones(4), jnp.ones(1)),
            ValueError,
            r"x must have shape \[..., length, heads, width\], got \(4,\)",
        ),
        (
            lambda: bare(functional.rms_norm)(X, jnp.ones(3)),
            ValueError,
            r"scale must have the width of x, got \(3,\) for x \(3, 2, 4\)",
        ),
        (
            lambda: bare(functional.co_attention)(
                X, jnp.ones((5, 2, 3)), value_a=X, value_b=jnp.ones((5, 2, 3))
            ),
            ValueError,
            r"expected a \[..., t, h, d\].*b \(5, 2, 3\)",
        ),
        (
            lambda: bare(functional.dot_product_attention)(jnp.ones((3, 3, 4)), X, X),
            ValueError,
            "expected query heads in multiples of the 2 heads of key and value, got 3",
        ),
        (
            lambda: bare(functional.dot_product_attention)(X, X, X, dropout=1.0),
            ValueError,
            r"dropout must be in \[0, 1\), got 1.0",
        ),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_positions_in_bfloat16_are_turned_in_float32():
    x = jnp.ones((1, 1, 2), jnp.bfloat16)
    got = functional.rotary_embedding(x, jnp.asarray([257.0]))
    wide = functional.rotary_embedding(x.astype(jnp.float32), jnp.asarray([257.0]))
    assert got.dtype == jnp.bfloat16
    assert got.tolist() == wide.astype(jnp.bfloat16).tolist()
