"""Entropic optimal transport of a cost matrix: balanced, unbalanced and partial, with masks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num, ScalarLike

from datarax.functional.transport.costs import PointCost, mean_cost
from datarax.functional.transport.marginals import (
    Regulariser,
    marginals,
    positive_scalar,
    reference_measure,
)
from datarax.functional.transport.point_plan import PointPlan, plan_cost, plan_row_sums
from datarax.functional.transport.potentials import (
    Potentials,
    Problem,
    dual_value,
    marginal_error,
    plan_of,
)
from datarax.functional.transport.sweeps import MEMORY_BUDGET, solve


class Transport(NamedTuple):
    r"""A plan and what is known of it.

    Attributes:
      plan: [n, m], how much of row `i` goes to column `j`; exactly 0 where one of them is masked.
        Between points it is a `PointPlan`, which `transport_features` takes too; its `matrix()` is
        the matrix.
      cost: $\langle P, C \rangle$.
      regularised_cost: the optimum of the problem that was solved.
      row_potentials, column_potentials: the dual variables [n] and [m]; 0 where masked.
      converged: whether both errors are within the tolerance, and both costs numbers.
      error: how much the last sweep moved a potential, over epsilon.
      marginal_error: the largest relative error of a sum of the plan, as a logarithm, beside what
        the optimum has there; rounding is part of it.
    """

    plan: Float[Array, "n m"] | PointPlan
    cost: Float[Array, ""]
    regularised_cost: Float[Array, ""]
    row_potentials: Float[Array, " n"]
    column_potentials: Float[Array, " m"]
    converged: Bool[Array, ""]
    error: Float[Array, ""]
    marginal_error: Float[Array, ""]


def sinkhorn(
    cost: Num[Array, "n m"] | PointCost,
    *,
    a: Array | None = None,
    b: Array | None = None,
    a_mask: Array | None = None,
    b_mask: Array | None = None,
    epsilon: ScalarLike = 0.05,
    relative: bool = True,
    num_iterations: int = 1000,
    tolerance: float | int = 1e-4,
    unroll: bool = False,
    memory_budget: int = MEMORY_BUDGET,
) -> Transport:
    r"""Balanced entropic transport, $\min_P \langle P, C \rangle + \varepsilon\, KL(P | a b^\top)$

    over $P \ge 0$ with row sums `a` and column sums `b`, where $KL(P | Q) = \sum P \log(P / Q) - P
    + Q$. Sinkhorn's algorithm in the domain of the scalings, whose kernel absorbs the potentials; a
    sweep in which a sum lost terms that count, as at small epsilon, is made in the log domain.

    A potential is rounded to about $u \max C$, with `u` of 1e-7 in float32 and 2e-16 in float64, so
    the plan's sums are right to $u \max C / \varepsilon$ at best. Where that is above the tolerance
    (float32 and 1e-4: epsilon below a thousandth of the largest cost) it may converge no more.
    Where it is above 1 the potentials may stand still at a plan of any mass, whose cost and
    gradients overflow to inf or NaN at last: then `converged` is False. float64 goes further.

    Between points (a `PointCost`) the kernel is the only matrix, made within the budget only:
    beyond, a sweep takes one product of the points, tile by tile, in memory of `n d`.

    Gradients: that of `regularised_cost`, by cost, weights and epsilon, is by the envelope theorem:
    exact at convergence, at any number of sweeps for the memory of none. That of `cost` holds the
    plan fixed. The plan, the potentials and the error are constants, unless `unroll` is set: then
    `num_iterations` sweeps are made and differentiated, and all but the error have the gradient of
    these sweeps, for their memory.

    Args:
      cost: [n, m], which may be NaN or inf where a row or a column is masked; or a `point_cost`.
      a, b: weights [n] and [m], at least 0, of one sum; `None` shares 1 among the kept. A weight of
        0 masks. A traced one that is negative, inf or NaN makes the regularised cost NaN, and
        `converged` False.
      a_mask, b_mask: bool [n] and [m], the rows and columns that there are.
      epsilon: strength of the regularisation, positive.
      relative: `epsilon` is in units of the mean cost $a^\top C b / \sum a_i b_j$ (of 1 where that
        is 0), which makes the plan independent of the scale of the cost.
      num_iterations: the largest number of sweeps.
      tolerance: sweeps end when none of the potentials moves by more than this times epsilon, which
        bounds the relative error of the plan's sums but for rounding.
      unroll: differentiate the sweeps, which are then in the log domain, on a matrix.
      memory_budget: bytes that the kernel may take; a larger one is made anew in every sweep.

    Returns:
      A `Transport`, at least float32. If no row or no column is kept, all is 0 and it converged.

    Raises:
      TypeError: if cost or weights are not floating point or a mask not boolean.
      ValueError: if shapes do not fit, a weight is negative, inf or NaN, or epsilon or
        `num_iterations` is not positive.

    Reference: Cuturi, 2013, arXiv:1306.0895; the plan is that of `ot.sinkhorn`, the regularised
    cost that of `ott.solvers.linear.sinkhorn`.

    Example:
      >>> found = sinkhorn(jnp.array([[0.0, 1.0], [1.0, 0.0]]), epsilon=0.1)
      >>> found.plan.round(3).tolist(), bool(found.converged)
      ([[0.5, 0.0], [0.0, 0.5]], True)
    """
    cost, a, b = marginals(cost, a, b, a_mask=a_mask, b_mask=b_mask)
    unit = mean_cost(cost, a, b) if relative else None
    epsilon = positive_scalar(epsilon, name="epsilon", like=cost, unit=unit)
    problem = Problem(cost, a, b, a, b, epsilon)
    return _transport(
        problem,
        num_iterations=num_iterations,
        tolerance=tolerance,
        unroll=unroll,
        memory_budget=memory_budget,
    )


def unbalanced_sinkhorn(
    cost: Num[Array, "n m"] | PointCost,
    *,
    a: Array | None = None,
    b: Array | None = None,
    a_mask: Array | None = None,
    b_mask: Array | None = None,
    epsilon: ScalarLike = 0.05,
    relaxation: ScalarLike = 1.0,
    regulariser: Regulariser = "kl",
    relative: bool = True,
    num_iterations: int = 1000,
    tolerance: float | int = 1e-4,
    unroll: bool = False,
    memory_budget: int = MEMORY_BUDGET,
) -> Transport:
    r"""Transport that may miss the weights, $\min_{P \ge 0} \langle P, C \rangle + \varepsilon\,
    KL(P | R) + \rho\, KL(P 1 | a) + \rho\, KL(P^\top 1 | b)$.

    Args:
      cost, a, b, a_mask, b_mask: as in `sinkhorn`; the sums of the weights may differ.
      epsilon: strength of the regularisation, positive.
      relaxation: $\rho$, positive; the larger, the closer the sums are to the weights.
      regulariser: the reference measure `R`: `"kl"` is $a b^\top$ (POT's default), `"entropy"` is 1
        everywhere (OTT, and `reg_type="entropy"` of POT). The plans differ.
      relative: `epsilon` and `relaxation` are in units of the mean cost, as in `sinkhorn`.
      num_iterations, tolerance, unroll, memory_budget: as in `sinkhorn`.

    Returns:
      A `Transport`; gradients and degenerate cases as in `sinkhorn`.

    Raises:
      TypeError: as `sinkhorn`.
      ValueError: as `sinkhorn`, if `relaxation` is not positive, or the regulariser is unknown.

    Reference: Chizat et al., 2016, arXiv:1607.05816; `ot.unbalanced.sinkhorn_unbalanced`.

    Example:
      >>> found = unbalanced_sinkhorn(jnp.array([[0.0, 9.0]]), epsilon=0.1, relative=False)
      >>> bool(found.plan[0, 1] < 0.1), bool(found.converged)
      (True, True)
    """
    cost, a, b = marginals(cost, a, b, a_mask=a_mask, b_mask=b_mask)
    unit = mean_cost(cost, a, b) if relative else None
    rho = positive_scalar(relaxation, name="relaxation", like=cost, unit=unit)
    epsilon = positive_scalar(epsilon, name="epsilon", like=cost, unit=unit)
    problem = Problem(cost, a, b, *reference_measure(a, b, regulariser), epsilon, relaxation=rho)
    return _transport(
        problem,
        num_iterations=num_iterations,
        tolerance=tolerance,
        unroll=unroll,
        memory_budget=memory_budget,
    )


def partial_sinkhorn(
    cost: Num[Array, "n m"] | PointCost,
    *,
    mass: ScalarLike,
    a: Array | None = None,
    b: Array | None = None,
    a_mask: Array | None = None,
    b_mask: Array | None = None,
    epsilon: ScalarLike = 0.05,
    regulariser: Regulariser = "entropy",
    relative: bool = True,
    num_iterations: int = 1000,
    tolerance: float | int = 1e-4,
    unroll: bool = False,
    memory_budget: int = MEMORY_BUDGET,
) -> Transport:
    r"""Transport of a part, $\min_{P \ge 0} \langle P, C \rangle + \varepsilon\, KL(P | R)$

    over plans of mass `mass` whose row sums are at most `a` and column sums at most `b`.

    Args:
      cost, a, b, a_mask, b_mask: as in `sinkhorn`; the sums of the weights may differ.
      mass: how much is transported, positive and at most the smaller of the two sums (1 where the
        weights are not given). More cannot be had: it does not converge.
      epsilon: strength of the regularisation, positive.
      regulariser: the reference measure `R`: `"entropy"` is 1 everywhere (POT), `"kl"` is
        $a b^\top$. With equal weights the plans agree.
      relative, num_iterations, tolerance, unroll, memory_budget: as in `sinkhorn`.

    Returns:
      A `Transport`; gradients and degenerate cases as in `sinkhorn`. The gradient by `mass` is that
      of the regularised cost.

    Raises:
      TypeError: as `sinkhorn`.
      ValueError: as `sinkhorn`, if `mass` is not positive, or the regulariser is unknown.

    Reference: Benamou et al., 2015, arXiv:1412.5154, section 5; `ot.partial
    .entropic_partial_wasserstein`.

    Example:
      >>> found = partial_sinkhorn(jnp.array([[0.0, 9.0], [9.0, 9.0]]), mass=0.5, epsilon=0.1)
      >>> found.plan.round(2).tolist()
      [[0.5, 0.0], [0.0, 0.0]]
    """
    cost, a, b = marginals(cost, a, b, a_mask=a_mask, b_mask=b_mask)
    unit = mean_cost(cost, a, b) if relative else None
    epsilon = positive_scalar(epsilon, name="epsilon", like=cost, unit=unit)
    part = positive_scalar(mass, name="mass", like=cost)
    problem = Problem(cost, a, b, *reference_measure(a, b, regulariser), epsilon, mass=part)
    return _transport(
        problem,
        num_iterations=num_iterations,
        tolerance=tolerance,
        unroll=unroll,
        memory_budget=memory_budget,
    )


def _transport(
    problem: Problem,
    *,
    num_iterations: int,
    tolerance: float | int,
    unroll: bool,
    memory_budget: int,
) -> Transport:
    if num_iterations < 1:
        raise ValueError(f"num_iterations must be at least 1, got {num_iterations}")
    found, error = solve(
        problem,
        num_iterations=num_iterations,
        tolerance=tolerance,
        unroll=unroll,
        memory_budget=memory_budget,
    )
    plan, cost, sums = _plan(problem, found, fixed=not unroll)
    value = dual_value(problem, found, jnp.sum(sums[0]))
    # Once, of the plan itself: where rounding is more than epsilon, sweeps that go wrong stand.
    missed = marginal_error(*jax.lax.stop_gradient((problem, found, sums)))
    within = (error <= tolerance) & (missed <= tolerance)
    return Transport(
        plan=plan,
        cost=cost,
        regularised_cost=value,
        row_potentials=found.rows,
        column_potentials=found.columns,
        converged=within & jnp.isfinite(cost) & jnp.isfinite(value),
        error=error,
        marginal_error=missed,
    )


def _plan(
    problem: Problem, found: Potentials, *, fixed: bool
) -> tuple[Array | PointPlan, Array, tuple[Array, Array]]:
    """The plan, held fixed or not, its cost, and its sums of rows, never fixed, and columns."""
    if isinstance(problem.cost, PointCost):
        points = PointPlan(problem, found)
        constant = jax.lax.stop_gradient(points)
        plan = constant if fixed else points
        sums = plan_row_sums(points), plan_row_sums(constant.transposed)
        return plan, plan_cost(plan, problem.cost), sums
    matrix = plan_of(problem, found)
    plan = jax.lax.stop_gradient(matrix) if fixed else matrix
    return plan, jnp.sum(plan * problem.cost), (jnp.sum(matrix, axis=1), jnp.sum(matrix, axis=0))
