"""Transport against OTT and POT, its limits, its flag, and what it refuses."""

import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
import transport_oracles as oracle
from jax.test_util import check_grads

from datarax import functional

EXACT = {"relative": False, "num_iterations": 20000, "tolerance": 1e-14}
POT = {"stopThr": 1e-15, "numItermax": 20000}
EPSILON = 0.05


@pytest.fixture(scope="module")
def problem():
    """A cost, and weights that are not equal."""
    rng = np.random.default_rng(0)
    cost, a, b = rng.random((6, 5)), rng.random(6), rng.random(5)
    return cost, a / a.sum(), b / b.sum()


@pytest.fixture
def ott():
    """The modules of OTT, which warns when it is imported."""
    with (
        warnings.catch_warnings(),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        warnings.simplefilter("ignore")
        from ott.geometry import geometry
        from ott.problems.linear import linear_problem
        from ott.solvers.linear import sinkhorn
        from ott.tools import sinkhorn_divergence

        yield geometry, linear_problem, sinkhorn, sinkhorn_divergence


def run(solver, problem, **options):
    """A solver of ours on a problem, in the precision of its arrays."""
    cost, a, b = (jnp.asarray(x) for x in problem)
    return jax.jit(lambda c, a, b: solver(c, a=a, b=b, **EXACT | options))(cost, a, b)


def single(problem):
    return tuple(x.astype(np.float32) for x in problem)


def same(ours, theirs, *, single_precision=None):
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    if single_precision is not None:
        assert single_precision.dtype == jnp.float32
        np.testing.assert_allclose(single_precision, theirs, rtol=1e-5, atol=1e-5)


def test_balanced_plan_is_that_of_pot_and_ott(problem, ott):
    cost, a, b = problem
    coarse = run(functional.sinkhorn, single(problem), epsilon=EPSILON, num_iterations=500)
    with jax.enable_x64(True):
        ours = run(functional.sinkhorn, problem, epsilon=EPSILON)
        theirs = ot.sinkhorn(a, b, cost, EPSILON, method="sinkhorn_log", **POT)
        same(ours.plan, theirs, single_precision=coarse.plan)
        same(ours.cost, np.sum(theirs * cost), single_precision=coarse.cost)
        geometry, linear_problem, solver, _ = ott
        shape = geometry.Geometry(cost_matrix=jnp.asarray(cost), epsilon=EPSILON)
        posed = linear_problem.LinearProblem(shape, a=jnp.asarray(a), b=jnp.asarray(b))
        found = solver.Sinkhorn(threshold=1e-13, max_iterations=20000)(posed)
        same(ours.plan, found.matrix)
        same(ours.regularised_cost, found.reg_ot_cost, single_precision=coarse.regularised_cost)


@pytest.mark.parametrize("regulariser", ["kl", "entropy"])
def test_unbalanced_plan_is_that_of_pot(problem, regulariser):
    cost, a, b = problem
    options = {"epsilon": EPSILON, "relaxation": 0.7, "regulariser": regulariser}
    coarse = run(functional.unbalanced_sinkhorn, single(problem), **options, num_iterations=500)
    with jax.enable_x64(True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, log = ot.unbalanced.sinkhorn_unbalanced(
            a, b, cost, EPSILON, 0.7, reg_type=regulariser, log=True, **POT
        )
        ours = run(functional.unbalanced_sinkhorn, problem, **options)
        same(ours.plan, theirs, single_precision=coarse.plan)
        reference = np.outer(a, b) if regulariser == "kl" else np.ones_like(cost)
        value = oracle.unbalanced(cost, a, b, EPSILON, 0.7, reference)[1]
        same(ours.regularised_cost, value, single_precision=coarse.regularised_cost)
        assert abs(log["cost"] - ours.cost) < 1e-12


def test_ott_regularises_unbalanced_plans_by_entropy(problem, ott):
    cost, a, b = problem
    geometry, linear_problem, solver, _ = ott
    with jax.enable_x64(True):
        tau = 0.7 / (0.7 + EPSILON)
        posed = linear_problem.LinearProblem(
            geometry.Geometry(cost_matrix=jnp.asarray(cost), epsilon=EPSILON),
            a=jnp.asarray(a),
            b=jnp.asarray(b),
            tau_a=tau,
            tau_b=tau,
        )
        theirs = solver.Sinkhorn(threshold=1e-13, max_iterations=20000)(posed).matrix
        ours, other = (
            run(
                functional.unbalanced_sinkhorn,
                problem,
                epsilon=EPSILON,
                relaxation=0.7,
                regulariser=r,
            )
            for r in ("entropy", "kl")
        )
        same(ours.plan, theirs)
        assert np.abs(other.plan - theirs).max() > 1e-3


def test_partial_plan_is_that_of_pot(problem):
    cost, a, b = problem
    options = {"epsilon": EPSILON, "mass": 0.6}
    coarse = run(functional.partial_sinkhorn, single(problem), **options, num_iterations=500)
    with jax.enable_x64(True):
        theirs = ot.partial.entropic_partial_wasserstein(
            a, b, cost, EPSILON, m=0.6, method="sinkhorn_log", stopThr=1e-15, numItermax=5000
        )
        ours = run(functional.partial_sinkhorn, problem, **options)
        same(ours.plan, theirs, single_precision=coarse.plan)
        assert abs(ours.plan.sum() - 0.6) < 1e-12


def test_divergence_is_that_of_ott(ott):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(5, 3))
    with jax.enable_x64(True):
        tools = ott[3]
        stop = {"threshold": 1e-13, "max_iterations": 20000}
        theirs, _ = tools.sinkdiv(jnp.asarray(x), jnp.asarray(y), epsilon=0.3, solve_kwargs=stop)
        ours = jax.jit(lambda x, y: functional.sinkhorn_divergence(x, y, epsilon=0.3, **EXACT))(
            jnp.asarray(x), jnp.asarray(y)
        )
        same(ours, theirs)


def test_limits():
    rng = np.random.default_rng(2)
    cost = rng.random((5, 5))
    wide = run(functional.sinkhorn, (cost, np.full(5, 0.2), np.full(5, 0.2)), epsilon=1e4)
    np.testing.assert_allclose(wide.plan, np.full((5, 5), 0.04), rtol=1e-3)
    x, order = jnp.asarray(rng.normal(size=(5, 3)), jnp.float32), np.array([3, 0, 4, 1, 2])
    narrow = functional.sinkhorn(functional.transport_cost(x, x[order]), epsilon=1e-3)
    np.testing.assert_array_equal(narrow.plan.argmax(axis=0), order)
    assert bool(narrow.converged)


@pytest.mark.parametrize("unroll", [False, True])
def test_the_flag_is_not_raised_by_first_rows_that_fit(unroll):
    cost, a = -jnp.log(jnp.array([[1.5, 0.5], [0.5, 1.5]])), jnp.array([0.7, 0.3])
    options = {"epsilon": 1.0, "relative": False, "unroll": unroll}
    assert not functional.sinkhorn(cost, a=a, num_iterations=1, **options).converged
    found = functional.sinkhorn(cost, a=a, num_iterations=20, **options)
    assert found.converged
    np.testing.assert_allclose(found.plan.sum(axis=1), a, rtol=1e-4)


def test_the_flag_tells_when_sweeps_ran_out(problem):
    few = run(functional.sinkhorn, single(problem), epsilon=0.01, num_iterations=2, tolerance=1e-4)
    assert not bool(few.converged)
    assert few.error > 1e-4
    off = np.abs(np.asarray(few.plan).sum(axis=1) - problem[1]).max()
    many = run(
        functional.sinkhorn, single(problem), epsilon=0.01, num_iterations=9999, tolerance=1e-4
    )
    assert bool(many.converged)
    assert np.abs(np.asarray(many.plan).sum(axis=1) - problem[1]).max() < min(off, 1e-4)


def test_relative_epsilon_does_not_see_the_scale(problem):
    cost, a, b = single(problem)
    plans = [
        run(functional.sinkhorn, (scale * cost, a, b), epsilon=0.1, relative=True).plan
        for scale in (1, 1000)
    ]
    np.testing.assert_allclose(*plans, rtol=1e-3, atol=1e-6)


def test_masked_points_have_no_mass_and_no_gradient(problem):
    cost, a, _ = single(problem)
    there, dirty = np.array([1, 1, 0, 1, 0, 1], bool), cost.copy()
    dirty[~there], dirty[:, 1] = np.nan, np.inf
    columns = np.array([1, 0, 1, 1, 1], bool)

    def value(cost, a):
        found = functional.sinkhorn(
            cost, a=a, a_mask=jnp.asarray(there), b_mask=jnp.asarray(columns), epsilon=0.3
        )
        return found.regularised_cost, found

    a = np.where(there, a / a[there].sum(), np.nan).astype(np.float32)
    gradients, found = jax.jit(jax.grad(value, (0, 1), has_aux=True))(
        jnp.asarray(dirty), jnp.asarray(a)
    )
    small, kept = cost[there][:, columns], jnp.asarray(a[there])
    alone = functional.sinkhorn(jnp.asarray(small), a=kept, epsilon=0.3)
    assert not np.any(np.asarray(found.plan)[~there])
    assert not np.any(np.asarray(found.plan)[:, ~columns])
    np.testing.assert_allclose(found.plan[there][:, columns], alone.plan, rtol=1e-5)
    assert np.isfinite(gradients[0]).all()
    assert np.isfinite(gradients[1]).all()
    assert not np.any(np.asarray(gradients[0])[~there])
    assert not np.any(np.asarray(gradients[0])[:, ~columns])


@pytest.mark.parametrize(
    "solver",
    [
        pytest.param(functional.sinkhorn, marks=pytest.mark.slow),
        functional.unbalanced_sinkhorn,
        pytest.param(
            lambda *args, **options: functional.partial_sinkhorn(*args, mass=0.5, **options),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_gradients_by_cost_weights_and_epsilon(problem, solver):
    with jax.enable_x64(True):
        cost, a, b = (jnp.asarray(x) for x in problem)

        def value(cost, logits, epsilon):
            weights = jax.nn.softmax(logits)
            options = {"num_iterations": 5000, "tolerance": 1e-13}
            return solver(cost, a=weights, b=b, epsilon=epsilon, **options).regularised_cost

        points = (cost, jnp.log(a), jnp.asarray(0.2))
        check_grads(jax.jit(value), points, order=1, modes=["fwd", "rev"], atol=1e-6, rtol=1e-6)


def test_the_plan_has_a_gradient_only_when_unrolled(problem):
    with jax.enable_x64(True):
        cost = jnp.asarray(problem[0])

        def brought(cost, unroll):
            found = functional.sinkhorn(cost, epsilon=0.3, num_iterations=60, unroll=unroll)
            return jnp.sum(functional.transport_features(found.plan, cost.T) ** 2)

        unrolled = jax.jit(lambda c: brought(c, True))
        check_grads(unrolled, (cost,), order=1, modes=["fwd", "rev"], atol=1e-6, rtol=1e-6)
        plan = jax.grad(lambda c: functional.sinkhorn(c).plan[0, 0])(cost)
        assert not np.any(plan)


def test_memory_does_not_grow_with_the_sweeps():
    cost = jax.ShapeDtypeStruct((64, 64), jnp.float32)

    def memory(sweeps):
        def value(cost):
            return functional.sinkhorn(cost, num_iterations=sweeps).regularised_cost

        return jax.jit(jax.grad(value)).lower(cost).compile().memory_analysis().temp_size_in_bytes

    assert memory(20) == memory(200)


def test_features_are_means_by_the_plan():
    rng = np.random.default_rng(4)
    plan, values = rng.random((3, 4)), rng.normal(size=(4, 2))
    mask = np.array([True, False, True, True])
    dirty = values.copy()
    dirty[1] = np.nan
    with jax.enable_x64(True):
        ours = functional.transport_features(
            jnp.asarray(plan), jnp.asarray(dirty), mask=jnp.asarray(mask)
        )
        np.testing.assert_allclose(ours, oracle.transport_features(plan, values, mask, None))


@pytest.mark.parametrize("wrong", [-0.5, np.nan, np.inf])
def test_a_wrong_weight_that_is_not_known_yet_is_not_silent(wrong):
    cost = jnp.asarray(np.random.default_rng(5).random((3, 2)), jnp.float32)
    solvers = (functional.sinkhorn, functional.unbalanced_sinkhorn)
    for solver, relative in ((solvers[0], True), (solvers[0], False), (solvers[1], False)):
        found = jax.jit(lambda c, a, s=solver, r=relative: s(c, a=a, relative=r))(
            cost, jnp.array([0.3, wrong, 0.2])
        )
        assert jnp.isnan(found.regularised_cost)
        assert not found.converged
    every = jax.jit(lambda c, a: functional.sinkhorn(c, a=a))(cost, jnp.full(3, wrong))
    assert not every.converged


def test_a_masked_weight_may_be_anything():
    cost, mask = jnp.ones((3, 2)), jnp.array([True, False, True])
    a = jnp.array([0.5, jnp.nan, 0.5])
    for solve in (functional.sinkhorn, jax.jit(functional.sinkhorn)):
        found = solve(cost, a=a, a_mask=mask)
        np.testing.assert_allclose(found.plan.sum(axis=1), [0.5, 0, 0.5], rtol=1e-6)
        assert found.converged


C, X = jnp.ones((3, 2)), jnp.ones((3, 4))


@pytest.mark.parametrize(
    ("function", "arguments", "options", "error", "message"),
    [
        (functional.sinkhorn, [C[0]], {}, ValueError, r"cost must have shape \[n, m\], got \(2,\)"),
        (functional.sinkhorn, [C > 0], {}, TypeError, "cost must be floating point, got bool"),
        (
            functional.sinkhorn,
            [C],
            {"a": C[0]},
            ValueError,
            r"a must have shape \(3,\), got \(2,\)",
        ),
        (
            functional.sinkhorn,
            [C],
            {"b": C[0] > 0},
            TypeError,
            "b must be floating point, got bool",
        ),
        (
            functional.sinkhorn,
            [C],
            {"a": jnp.array([0.5, -0.5, 1.0])},
            ValueError,
            "a must be finite and at least 0, got -0.5",
        ),
        (
            functional.partial_sinkhorn,
            [C],
            {"b": jnp.array([1.0, jnp.nan]), "mass": 0.5},
            ValueError,
            "b must be finite and at least 0, got nan",
        ),
        (
            functional.gromov_wasserstein,
            [jnp.ones((3, 3)), jnp.ones((2, 2))],
            {"b": jnp.array([1.0, jnp.inf])},
            ValueError,
            "b must be finite and at least 0, got inf",
        ),
        (functional.sinkhorn, [C], {"a_mask": C[:, 0]}, TypeError, "a_mask must be boolean"),
        (functional.sinkhorn, [C], {"b_mask": C[:, 0] > 0}, ValueError, r"b_mask must have shape"),
        (functional.sinkhorn, [C], {"epsilon": 0.0}, ValueError, "epsilon must be positive, got 0"),
        (
            functional.sinkhorn,
            [C],
            {"epsilon": C},
            ValueError,
            "epsilon must be a scalar, got shape",
        ),
        (functional.sinkhorn, [C], {"num_iterations": 0}, ValueError, "num_iterations must be at"),
        (
            functional.unbalanced_sinkhorn,
            [C],
            {"relaxation": -1.0},
            ValueError,
            "relaxation must be",
        ),
        (functional.unbalanced_sinkhorn, [C], {"regulariser": "l2"}, ValueError, r"one of \['kl'"),
        (
            functional.partial_sinkhorn,
            [C],
            {"mass": 0.0},
            ValueError,
            "mass must be positive, got 0",
        ),
        (functional.transport_cost, [X, X[:, :1]], {}, ValueError, "one width"),
        (functional.transport_cost, [X, X], {"metric": "l1"}, ValueError, "metric must be one of"),
        (functional.transport_features, [C, X], {}, ValueError, r"plan \(3, 2\) needs 2 values"),
    ],
)
def test_refuses(function, arguments, options, error, message):
    with pytest.raises(error, match=message):
        inspect.unwrap(function)(*arguments, **options)
