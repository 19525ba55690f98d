"""Gromov-Wasserstein against POT, its invariances, and what it refuses."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest

from datarax.functional import gromov_wasserstein

EXACT = {"relative": False, "num_iterations": 1000, "inner_iterations": 1000, "tolerance": 1e-13}
POT = {"max_iter": 1000, "tol": 1e-14, "log": True, "stopThr": 1e-15, "numItermax": 10000}


def structures(symmetric):
    rng = np.random.default_rng(0)
    first, second, cross = rng.random((6, 6)), rng.random((5, 5)), rng.random((6, 5))
    a, b = rng.random(6), rng.random(5)
    if symmetric:
        first, second = first + first.T, second + second.T
    return first, second, cross, a / a.sum(), b / b.sum()


@pytest.mark.parametrize("symmetric", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fused", [False, True])
def test_plan_is_that_of_pot(symmetric, fused):
    first, second, cross, a, b = structures(symmetric)
    options = {"epsilon": 0.3} | ({"cross_weight": 0.3} if fused else {})

    def ours(dtype, **extra):
        x, y, z, p, q = (jnp.asarray(v, dtype) for v in (first, second, cross, a, b))
        more = {"cross_cost": z} if fused else {}
        return jax.jit(
            lambda: gromov_wasserstein(x, y, a=p, b=q, **more, **EXACT | options | extra)
        )()

    coarse = ours(jnp.float32, tolerance=1e-7, num_iterations=100)
    with jax.enable_x64(True):
        found = ours(jnp.float64)
    if fused:
        theirs, log = ot.gromov.entropic_fused_gromov_wasserstein(
            cross, first, second, a, b, "square_loss", epsilon=0.3, alpha=0.7, **POT
        )
    else:
        theirs, log = ot.gromov.entropic_gromov_wasserstein(
            first, second, a, b, "square_loss", epsilon=0.3, **POT
        )
    np.testing.assert_allclose(found.plan, theirs, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.cost, log["fgw_dist" if fused else "gw_dist"], rtol=1e-9)
    np.testing.assert_allclose(coarse.plan, theirs, rtol=1e-5, atol=1e-5)
    assert bool(found.converged)


def test_rotated_copies_in_another_width_cost_nothing():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6, 2)) * np.arange(1, 7)[:, None]
    order = np.array([4, 2, 0, 5, 1, 3])
    turned = (
        np.concatenate([x, np.zeros_like(x)], axis=1) @ np.linalg.qr(rng.normal(size=(4, 4)))[0]
    )
    distances = [
        jnp.asarray(((z[:, None] - z[None]) ** 2).sum(axis=-1), jnp.float32)
        for z in (x, turned[order])
    ]
    found = gromov_wasserstein(*distances, epsilon=1e-3)
    np.testing.assert_array_equal(found.plan.argmax(axis=0), order)
    assert bool(found.converged)
    assert found.cost < 1e-3 * jnp.mean(distances[0]) ** 2


def test_the_flag_tells_when_iterations_ran_out():
    first, second, *_ = (jnp.asarray(x, jnp.float32) for x in structures(True))
    found = gromov_wasserstein(first, second, num_iterations=1)
    assert not bool(found.converged)
    assert found.error > 1e-5


def test_a_plan_that_stands_still_but_misses_its_weights_did_not_converge():
    rng = np.random.default_rng(0)
    sets = [rng.normal(size=(n, 2)) for n in (3, 4)]
    first, second = (
        jnp.asarray(np.linalg.norm(z[:, None] - z[None], axis=-1), jnp.float32) for z in sets
    )
    solve = jax.jit(lambda epsilon: gromov_wasserstein(first, second, epsilon=epsilon))
    assert solve(0.05).converged
    still = 0
    for epsilon in (1e-3, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9):
        found = solve(epsilon)
        shares = 1 / first.shape[0], 1 / second.shape[0]
        missed = max(
            np.linalg.norm(np.asarray(found.plan, np.float64).sum(axis=axis) - share)
            for axis, share in zip((1, 0), shares, strict=True)
        )
        assert not found.converged or missed < 1.1e-5
        still += bool(found.error <= 1e-5) and not missed < 1e-5
    assert still


A, B = jnp.ones((3, 3)), jnp.ones((2, 2))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ([A[:2], B], {}, ValueError, r"a_cost must be square, got \(2, 3\)"),
        ([A, B > 0], {}, TypeError, "b_cost must be floating point, got bool"),
        (
            [A, B],
            {"cross_cost": A},
            ValueError,
            r"cross_cost must have shape \(3, 2\), got \(3, 3\)",
        ),
        ([A, B], {"cross_weight": 2.0}, ValueError, r"cross_weight must be in \[0, 1\], got 2"),
        ([A, B], {"num_iterations": 0}, ValueError, "num_iterations must be at least 1, got 0"),
        ([A, B], {"inner_iterations": 0}, ValueError, "inner_iterations must be at least 1, got 0"),
        ([A, B], {"epsilon": -1.0}, ValueError, "epsilon must be positive, got -1"),
    ],
)
def test_refuses(arguments, options, error, message):
    with pytest.raises(error, match=message):
        inspect.unwrap(gromov_wasserstein)(*arguments, **options)
