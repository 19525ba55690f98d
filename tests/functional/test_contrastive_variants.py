"""The options of the contrastive losses that the table of contracts leaves out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contrastive_cases import VARIANTS


@pytest.mark.parametrize("case", VARIANTS, ids=lambda c: c.name)
def test_matches_the_loop_with_and_without_a_mask(case):
    with jax.enable_x64(True):
        arrays, ids = case.arrays(dtype=np.float64), case.labels()
        masks = (None,) if case.mask is None else (case.full_mask(), case.some_mask())
        run = jax.jit(case.run)
        for mask in masks:
            value = run(*map(jnp.asarray, arrays), mask, ids)
            expected = case.oracle(*arrays, mask, ids)
            np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-12)
