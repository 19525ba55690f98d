"""Numbers for tests of modules."""

import numpy as np


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-10)
