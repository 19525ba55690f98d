"""Scales and biases: one for all pairs or one each, plain or relative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.nn import LogitScale


def test_one_scale_and_bias_for_each_pair():
    scale = LogitScale(initial_scale=5.0, initial_bias=-2.0, pairs=3)
    np.testing.assert_allclose(scale(), [5.0] * 3, rtol=1e-6)
    np.testing.assert_allclose(scale.logit_bias, [-2.0] * 3)
    grads = nnx.grad(lambda scale: jnp.sum(scale()[:1]))(scale)
    np.testing.assert_allclose(grads.log_scale[...], [5.0, 0.0, 0.0], rtol=1e-6)


def test_a_relative_bias_starts_where_the_plain_one_would():
    plain = LogitScale(initial_scale=10.0, initial_bias=-10.0)
    relative = LogitScale(initial_scale=10.0, initial_bias=-10.0, relative=True)
    x = jnp.float32(0.3)
    assert relative.logit_bias is None
    assert plain.relative_bias is None
    np.testing.assert_allclose(
        relative() * (x - relative.relative_bias), plain() * x + plain.logit_bias, rtol=1e-6
    )


def test_without_a_bias_there_is_none():
    scale = LogitScale()
    assert scale.logit_bias is None
    assert scale.relative_bias is None
    assert len(jax.tree.leaves(nnx.state(scale, nnx.Param))) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial_scale": 101.0}, "expected 0 < min_scale <= initial_scale <= max_scale"),
        ({"relative": True}, "give initial_bias, got None"),
        ({"pairs": 0}, "pairs must be at least 1, got 0"),
    ],
)
def test_what_it_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        LogitScale(**options)
