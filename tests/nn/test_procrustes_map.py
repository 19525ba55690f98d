"""The stored orthogonal map."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from datarax.nn import ProcrustesMap


def test_it_is_the_identity_until_fitted():
    x = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(ProcrustesMap(3)(x), x)


def test_it_keeps_rotation_and_means():
    rng = np.random.default_rng(0)
    a = jnp.asarray(rng.normal(size=(7, 3)), jnp.float32)
    b = a.at[:, 2].mul(-1) + 5
    keep = jnp.arange(7) < 6
    mirror = ProcrustesMap(3, center=True)
    mirror.fit(a, b.at[6].set(jnp.nan), where=keep)
    np.testing.assert_allclose(mirror(a), b, rtol=1e-5, atol=1e-5)
    proper = ProcrustesMap(3, reflection=False, center=True)
    proper.fit(a, b)
    np.testing.assert_allclose(jnp.linalg.det(proper.rotation[...]), 1, rtol=1e-5)


def test_it_refuses_other_widths():
    rotate = ProcrustesMap(3)
    with pytest.raises(ValueError, match=r"x must have shape \[..., features=3\], got \(2, 2\)"):
        rotate(jnp.ones((2, 2)))
    with pytest.raises(ValueError, match=r"a must have shape \[n, features=3\], got \(2, 2\)"):
        rotate.fit(jnp.ones((2, 2)), jnp.ones((2, 2)))
    with pytest.raises(TypeError, match="x must be floating point"):
        rotate(jnp.ones((2, 3), jnp.int32))
    with pytest.raises(ValueError, match="features must be positive, got 0"):
        inspect.unwrap(ProcrustesMap)(0)
