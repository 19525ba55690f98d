"""Inputs of the tests of alignment losses, and how these call them."""

from functools import partial

import jax
import numpy as np


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def orthogonal(width, seed=0):
    return np.linalg.qr(normal(width, width, seed=seed))[0]


def call(function, *args, **options):
    """One program a call: op by op is slower."""
    return jax.jit(partial(function, **options))(*args)


def whitened(x):
    """Columns of mean 0, uncorrelated, with sum of squares n."""
    return np.linalg.qr(x - x.mean(0))[0] * np.sqrt(len(x))
