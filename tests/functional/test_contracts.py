"""Every function of the table against every contract of the house."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from functional_case import on_device
from functional_table import CASES
from jax.test_util import check_grads


def rows(cases, *, sample=1):
    """Parameters of which the gate runs every `sample`-th, `make test-all` all."""
    return pytest.mark.parametrize(
        "case",
        [
            pytest.param(case, marks=pytest.mark.slow if place % sample or case.exhaustive else [])
            for place, case in enumerate(cases)
        ],
        ids=lambda c: c.name,
    )


every = rows(CASES)
sampled = rows(CASES, sample=3)  # what costs a program of its own
masked = rows([c for c in CASES if c.mask])


@lru_cache(maxsize=4)
def compiled(case):
    """One compiled value and gradient a case: most tests differ in the numbers alone."""

    def objective(arrays, mask, ids):
        value = case.run(*arrays, mask, ids).astype(jnp.float32)
        weights = jnp.cos(jnp.arange(value.size, dtype=jnp.float32)).reshape(value.shape)
        return jnp.sum(value * weights), value

    return jax.jit(jax.grad(objective, has_aux=True))


def value_and_gradients(case, arrays, mask=None, ids=None):
    """The value, and the gradients of its inner product with fixed numbers of mixed sign."""
    gradients, value = compiled(case)([jnp.asarray(x) for x in arrays], mask, ids)
    return np.asarray(value), [np.asarray(g.astype(jnp.float32)) for g in gradients]


def all_finite(*arrays):
    return all(np.isfinite(x).all() for x in arrays)


@every
@pytest.mark.parametrize("with_mask", [pytest.param(False, marks=pytest.mark.slow), True])
def test_matches_the_loop_of_the_paper(case, with_mask):
    if not with_mask and case.mask is None:
        pytest.skip("takes no mask: the same as with one")
    mask = case.some_mask() if with_mask else None
    with jax.enable_x64(True):
        arrays = case.arrays(dtype=np.float64)
        run, xs = on_device(case, arrays, mask, case.labels())
        value = jax.jit(run)(*xs)
        assert value.dtype == jnp.float64
        np.testing.assert_allclose(
            value, case.oracle(*arrays, mask, case.labels()), rtol=1e-10, atol=1e-12
        )


@sampled
def test_float32_is_within_1e_5(case):
    arrays = case.arrays(seed=1)
    value, _ = value_and_gradients(case, arrays, case.some_mask(), case.labels())
    expected = case.oracle(*(x.astype(np.float64) for x in arrays), case.some_mask(), case.labels())
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)


@sampled
@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(ml_dtypes.bfloat16, id="bf16"),
        pytest.param(np.float16, id="f16", marks=pytest.mark.slow),
    ],
)
def test_half_precision_is_close(case, dtype):
    arrays = case.arrays(seed=2, dtype=dtype)
    value, gradients = value_and_gradients(case, arrays, case.full_mask(), case.labels())
    wide = [x.astype(np.float64) for x in arrays]
    expected = case.oracle(*wide, None, case.labels())
    np.testing.assert_allclose(value, expected, rtol=case.tolerance, atol=case.tolerance)
    assert all_finite(*gradients)


@sampled
def test_jit_equals_eager(case):
    run, xs = on_device(case, case.arrays(), case.some_mask(), case.labels())
    np.testing.assert_allclose(jax.jit(run)(*xs), run(*xs), rtol=1e-5, atol=1e-5)


@sampled
def test_vmap_equals_loop(case):
    if case.kind != "pointwise":
        pytest.skip("relates rows")
    arrays = [jnp.asarray(x) for x in case.arrays()]
    mask = None if case.mask is None else jnp.asarray(case.some_mask())
    axes = (*[0] * len(arrays), None if mask is None else 0, None)
    mapped = jax.vmap(case.run, in_axes=axes)(*arrays, mask, None)
    single = jax.jit(case.run)
    rows = [
        single(*(x[i] for x in arrays), None if mask is None else mask[i], None)
        for i in range(len(arrays[0]))
    ]
    np.testing.assert_allclose(mapped, jnp.stack(rows), rtol=1e-6, atol=1e-6)


@sampled
@pytest.mark.parametrize("mode", ["rev", pytest.param("fwd", marks=pytest.mark.slow)])
def test_gradients_check(case, mode):
    if mode == "fwd" and not case.forward:
        pytest.skip("has a rule for reverse mode alone")
    with jax.enable_x64(True):
        arrays = case.arrays(seed=case.check_seed, dtype=np.float64)
        run, xs = on_device(case, arrays, case.some_mask(), case.labels())
        check_grads(jax.jit(run), xs, order=1, modes=[mode], atol=1e-5, rtol=1e-5)


@every
def test_permuted_rows_give_permuted_values(case):
    order = np.random.default_rng(11).permutation(6)
    arrays, mask, ids = case.arrays(), case.some_mask(), case.labels()
    expected, _ = value_and_gradients(case, arrays, mask, ids)
    moved, _ = value_and_gradients(
        case,
        [x[order] for x in arrays],
        None if mask is None else mask[order],
        None if ids is None else ids[order],
    )
    if case.kind != "set":
        expected = expected[order]
    if case.kind == "matrix":
        expected = expected[:, order]
    np.testing.assert_allclose(moved, expected, rtol=1e-5, atol=1e-5)


@masked
@pytest.mark.parametrize(
    "garbage",
    [np.nan, np.inf, *(pytest.param(x, marks=pytest.mark.slow) for x in (-np.inf, 3e38))],
)
def test_garbage_in_masked_slots_reaches_nothing(case, garbage):
    mask, clean = case.some_mask(), case.arrays()
    dirty = [x.copy() for x in clean]
    for i in case.spoiled:
        dirty[i][~mask] = garbage
    value, gradients = value_and_gradients(case, clean, mask, case.labels())
    dirty_value, dirty_gradients = value_and_gradients(case, dirty, mask, case.labels())
    np.testing.assert_array_equal(dirty_value, value)
    for i, (gradient, expected) in enumerate(zip(dirty_gradients, gradients, strict=True)):
        np.testing.assert_array_equal(gradient, expected)
        if i in case.spoiled:
            assert not gradient[~mask].any()
            assert gradient[mask].any()


@masked
def test_nothing_kept_is_zero_with_gradient_zero(case):
    arrays = case.arrays()
    for i in case.spoiled:
        arrays[i][...] = np.nan
    mask = np.zeros_like(case.some_mask())
    value, gradients = value_and_gradients(case, arrays, mask, case.labels())
    assert not value.any()
    assert not any(g.any() for g in gradients)


def _zeros(case):
    return [np.zeros_like(x) for x in case.arrays()]


def _identical_rows(case):
    return [np.repeat(x[:1], len(x), axis=0) for x in case.arrays()]


def _identical_inputs(case):
    first = case.arrays()[0]
    return [first if x.shape == first.shape else x for x in case.arrays()]


def _one_zero_row(case):
    arrays = case.arrays()
    arrays[0][2] = 0
    return arrays


@every
@pytest.mark.parametrize("make", [_zeros, _identical_rows, _identical_inputs, _one_zero_row])
@pytest.mark.parametrize(
    "dtype",
    [np.float32, pytest.param(ml_dtypes.bfloat16, marks=pytest.mark.slow)],
    ids=["f32", "bf16"],
)
def test_degenerate_inputs_are_finite(case, make, dtype):
    arrays = [x.astype(dtype) for x in make(case)]
    value, gradients = value_and_gradients(case, arrays, case.full_mask(), case.labels())
    assert all_finite(value, *gradients)


@sampled
def test_one_row_is_finite(case):
    value, gradients = value_and_gradients(case, case.arrays(n=1), None, case.labels(n=1))
    assert all_finite(value, *gradients)
    if "info_nce" in case.name or case.name in ("pairwise_all", "pairwise_anchor", "uniformity"):
        assert not value.any()
        # Label smoothing takes shares from 1, which leaves a rounding.
        assert all(np.abs(g).max() < 1e-6 for g in gradients)
