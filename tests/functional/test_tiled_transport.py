"""Transport in scalings, in tiles and between points, against float64 loops in the log domain."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from datarax.functional.transport import (
    partial_sinkhorn,
    point_cost,
    sinkhorn,
    sinkhorn_divergence,
    sweeps,
    transport_cost,
    transport_features,
    unbalanced_sinkhorn,
)

PATHS = ("stored", "tiled", "points", "streaming")
SOLVERS = {
    "balanced": (sinkhorn, {}),
    "unbalanced": (unbalanced_sinkhorn, {"relaxation": 0.7}),
    "entropy": (unbalanced_sinkhorn, {"relaxation": 0.7, "regulariser": "entropy"}),
    "partial": (partial_sinkhorn, {"mass": 0.6}),
}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Tiles of 8 rows, so that the sets here take several, the last of them not whole."""
    monkeypatch.setattr(sweeps, "_TILE_BYTES", 1)


def points(n=21, m=13, width=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)), rng.normal(size=(m, width))


def single(*arrays):
    return [jnp.asarray(x, jnp.float32) for x in arrays]


def squared(x, y):
    return ((x[:, None] - y[None]) ** 2).sum(axis=-1)


def run(path, x, y, *, solver="balanced", x_mask=None, y_mask=None, **options):
    """One of the ways to the same transport."""
    function, own = SOLVERS[solver]
    masks = {"a_mask": x_mask, "b_mask": y_mask}
    budget = {"memory_budget": 0} if path in ("tiled", "streaming") else {}
    make = point_cost if path in ("points", "streaming") else transport_cost

    def solve(x, y):
        return function(make(x, y, **masks), **masks, **budget, **own | options)

    found = jax.jit(solve)(x, y)
    return found if make is transport_cost else found._replace(plan=found.plan.matrix())


def lse(x):
    top = max(x)
    return top + math.log(sum(math.exp(v - top) for v in x))


def loop(cost, a, b, epsilon, sweeps, factor=1.0):
    """Sinkhorn in the log domain, by rows and columns, in float64: both potentials.

    `factor` is rho / (rho + epsilon) of the unbalanced problem.
    """
    f, g = np.zeros(len(a)), np.zeros(len(b))
    for _ in range(sweeps):
        for i in range(len(a)):
            f[i] = -factor * epsilon * lse(np.log(b) + (g - cost[i]) / epsilon)
        for j in range(len(b)):
            g[j] = -factor * epsilon * lse(np.log(a) + (f - cost[:, j]) / epsilon)
    return f, g


def balanced(cost, a, b, epsilon, sweeps):
    """The plan and the dual value after the sweeps of `loop`."""
    f, g = loop(cost, a, b, epsilon, sweeps)
    plan = np.outer(a, b) * np.exp((f[:, None] + g[None] - cost) / epsilon)
    return plan, f @ a + g @ b + epsilon * (1 - plan.sum())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("wide", [False, True])
def test_every_path_makes_the_sweeps_of_the_loop(path, wide):
    x, y = points()
    a, b = np.full(21, 1 / 21), np.full(13, 1 / 13)
    with jax.enable_x64(wide):
        solve = jax.jit(
            lambda x, y, epsilon: run(
                path, x, y, epsilon=epsilon, relative=False, num_iterations=12, tolerance=0.0
            )
        )
        dtype = jnp.float64 if wide else jnp.float32
        for epsilon in (1.0, 0.1, 0.01, 1e-3, 1e-4):
            plan, value = balanced(squared(x, y), a, b, epsilon, sweeps=12)
            found = solve(*(jnp.asarray(v, dtype) for v in (x, y, epsilon)))
            # A potential is known to rounding of the squared norms, a plan to that over epsilon.
            rounding = 50 * float(jnp.finfo(dtype).eps)
            np.testing.assert_allclose(found.regularised_cost, value, rtol=rounding)
            np.testing.assert_allclose(found.plan, plan, rtol=rounding / epsilon, atol=1e-9)


@pytest.mark.parametrize(
    ("path", "solver"),
    [("stored", "unbalanced"), ("stored", "partial"), ("streaming", "partial")]
    + [pytest.param("streaming", name, marks=pytest.mark.slow) for name in SOLVERS],
)
def test_every_problem_takes_every_path(path, solver):
    x, y = single(*points(seed=1))
    masks = {"x_mask": jnp.arange(21) % 5 != 2, "y_mask": jnp.arange(13) != 4}
    options = {"epsilon": 0.1, "num_iterations": 15, "tolerance": 0.0, "solver": solver}
    dirty = jnp.where(masks["x_mask"][:, None], x, jnp.nan), y.at[4].set(jnp.inf)
    dense = run("stored", x, y, **masks, **options, unroll=True)
    found = run(path, *dirty, **masks, **options)
    for name in ("plan", "cost", "regularised_cost", "row_potentials", "column_potentials"):
        ours, theirs = found._asdict()[name], dense._asdict()[name]
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-6, err_msg=name)
    assert not np.any(np.asarray(found.plan)[2::5])
    assert not np.any(np.asarray(found.plan)[:, 4])


def far_rows():
    """A row whose many terms of e^-88 are lost beside the one of e^-86 that is not."""
    y = np.sqrt([87.1] + [89.0] * 60)
    x = np.concatenate([[0.0], y])
    return x, y, np.full(62, 1 / 62), np.array([0.5] + [0.5 / 60] * 60), 0.01, 5


def light_rows():
    """Many rows of a weight that is flushed when their potentials fall by 3, and outweigh one."""
    x, y = np.array([0.0] * 14 + [30.0]), np.array([0.0, 30.0])
    return x, y, np.array([1e-36] + [1e-37] * 13 + [1.0]), np.array([1e-37, 1.0]), 1.0, 3


@pytest.mark.parametrize("problem", [far_rows, light_rows])
@pytest.mark.parametrize("path", ["stored", "streaming"])
def test_sums_that_lose_terms_are_made_in_the_log_domain(path, problem):
    x, y, a, b, rho, sweeps = problem()
    make, budget = (point_cost, 0) if path == "streaming" else (transport_cost, 2**28)
    options = {"relative": False, "epsilon": 1.0, "num_iterations": sweeps, "tolerance": 0.0}

    @jax.jit
    def solve(x, y, a, b):
        cost = make(x[:, None], y[:, None])
        found = unbalanced_sinkhorn(cost, a=a, b=b, relaxation=rho, memory_budget=budget, **options)
        return found.row_potentials, found.column_potentials

    exact = loop(squared(x[:, None], y[:, None]), a, b, 1.0, sweeps, factor=rho / (rho + 1))
    for ours, theirs in zip(solve(*single(x, y, a, b)), exact, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=3e-4, atol=1e-5)


@pytest.mark.parametrize("path", ["stored", "streaming"])
def test_degenerate_sets(path):
    x, y = single(*points(n=12, m=9, seed=2))
    solve = jax.jit(lambda x, y, mask: run(path, x, y, x_mask=mask))
    one = run(path, x[:1], y[:1])
    np.testing.assert_allclose(one.plan, [[1.0]], rtol=1e-6)
    assert bool(one.converged)
    same = solve(jnp.ones((12, 3)), jnp.ones((9, 3)), jnp.ones(12, bool))
    np.testing.assert_allclose(same.plan, np.full((12, 9), 1 / 108), rtol=1e-5)
    none = solve(x, y, jnp.zeros(12, bool))
    assert not np.any(none.plan)
    assert bool(none.converged)
    assert float(none.regularised_cost) == 0
    empty = run(path, x[:0], y)
    assert empty.plan.shape == (0, 9)
    assert bool(empty.converged)


@pytest.mark.parametrize("path", PATHS)
def test_nothing_converged_that_misses_its_weights(path):
    x, y = points(n=5, m=7, width=8)
    a, b = np.full(5, 1 / 5), np.full(7, 1 / 7)
    solve = jax.jit(
        lambda x, y, epsilon: run(path, x, y, epsilon=epsilon, relative=False, num_iterations=500)
    )
    for epsilon in (10.0, 1.0):
        found = solve(*single(x, y, epsilon))
        plan, _ = balanced(squared(x, y), a, b, epsilon, sweeps=200)
        assert found.converged
        np.testing.assert_allclose(found.plan, plan, rtol=2e-3)
    stuck = 0
    for epsilon in (1e-3, 1e-5, 1e-6, 1e-7, 3e-8, 1e-8, 1e-9, 1e-30):
        found = solve(*single(x, y, epsilon))
        plan = np.asarray(found.plan, np.float64)
        with np.errstate(divide="ignore"):
            sums = [np.log(plan.sum(axis=1) / a), np.log(plan.sum(axis=0) / b)]
        missed = max(np.max(np.abs(v)) for v in sums)
        assert not found.converged or missed < 1.1e-4
        stuck += float(found.error) <= 1e-4
    assert stuck  # the potentials stood still somewhere, and that says nothing


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_flag_of_every_problem(solver):
    x, y = single(*points(n=5, m=7, width=8))
    mask = jnp.arange(7) != 4
    solve = jax.jit(
        lambda x, y, epsilon: run(
            "points", x, y, y_mask=mask, solver=solver, epsilon=epsilon, num_iterations=2000
        )
    )
    fine = solve(x, y, jnp.float32(0.3))
    assert fine.converged
    assert 0 < fine.marginal_error <= 1e-4
    assert not solve(x, y, jnp.float32(1e-9)).converged


def test_what_overflows_did_not_converge():
    heavy = {"a": jnp.array([10.0]), "b": jnp.array([10.0])}
    found = sinkhorn(jnp.array([[2e38]]), epsilon=2e37, relative=False, **heavy)
    np.testing.assert_allclose(found.plan, [[10.0]], rtol=1e-6)
    assert found.marginal_error < 1e-6
    assert not jnp.isfinite(found.cost)
    assert not found.converged


@pytest.mark.parametrize(
    "metric", ["cosine", pytest.param("squared_euclidean", marks=pytest.mark.slow)]
)
def test_streaming_has_the_gradients_of_the_matrix(metric):
    with jax.enable_x64(True):
        x, y = (jnp.asarray(v) for v in points(n=18, m=9, seed=3))
        mask = jnp.arange(18) != 5
        options = {"num_iterations": 3000, "tolerance": 1e-13}

        def value(make, budget):
            def at(x, y, logits, epsilon):
                cost = make(x, y, metric=metric, a_mask=mask)
                b = jax.nn.softmax(logits)
                found = sinkhorn(
                    cost, b=b, a_mask=mask, epsilon=epsilon, memory_budget=budget, **options
                )
                brought = transport_features(found.plan, y, mask=jnp.arange(9) != 2)
                return found.regularised_cost + found.cost + jnp.sum(brought**2)

            return jax.jit(jax.value_and_grad(at, (0, 1, 2, 3)))

        at = x.at[5].set(jnp.nan), y, jnp.linspace(0, 1, 9), jnp.asarray(0.3)
        dense, lazy = value(transport_cost, 2**28)(*at), value(point_cost, 0)(*at)
        jax.tree.map(
            lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-9, atol=1e-12), dense, lazy
        )
        assert not np.any(np.asarray(lazy[1][0])[5])


@pytest.mark.slow
def test_streaming_gradients_are_finite_differences():
    with jax.enable_x64(True):
        x, y = (jnp.asarray(v) for v in points(n=11, m=9, seed=4))

        def value(x, y, epsilon):
            options = {"num_iterations": 3000, "tolerance": 1e-13, "memory_budget": 0}
            return sinkhorn(point_cost(x, y), epsilon=epsilon, **options).regularised_cost

        at = x, y, jnp.asarray(0.3)
        check_grads(jax.jit(value), at, order=1, modes=["fwd", "rev"], atol=1e-6, rtol=1e-6)


@pytest.mark.slow
def test_divergence_streams():
    x, y = single(*points(seed=5))

    def value(budget):
        return jax.jit(
            jax.value_and_grad(
                lambda x, y: sinkhorn_divergence(x, y, epsilon=0.2, memory_budget=budget), (0, 1)
            )
        )

    whole, lazy = value(2**28)(x, y), value(0)(x, y)
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-3, atol=1e-4), whole, lazy)


def test_vmap_is_a_loop_where_records_need_different_paths():
    x, y = single(*points(n=12, m=9, seed=6))
    sets = jnp.stack([x, 30 * x, jnp.zeros_like(x)])

    def value(x):
        options = {"epsilon": 1.0, "relative": False, "num_iterations": 30}
        return sinkhorn(transport_cost(x, y), **options).regularised_cost

    one = jax.jit(value)
    together = jax.jit(jax.vmap(value))(sets)
    np.testing.assert_allclose(together, [one(v) for v in sets], rtol=1e-5)


def test_memory_is_of_the_points_alone(monkeypatch):
    monkeypatch.undo()
    n, width = 4096, 128
    shape = jax.ShapeDtypeStruct((n, width), jnp.float32)

    def temporary(count):
        def value(x, y):
            found = sinkhorn(point_cost(x, y), num_iterations=count, memory_budget=0)
            brought = jnp.sum(transport_features(found.plan, y) ** 2)
            return found.regularised_cost + brought

        compiled = jax.jit(jax.grad(value, (0, 1))).lower(shape, shape).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(20) == temporary(200) <= 24 * 2**20
