"""Gromov-Wasserstein: transport between sets whose points cannot be compared, only their pairs."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num, ScalarLike

from datarax.functional.checks import accumulation_dtype, check_floating, check_rank
from datarax.functional.transport.costs import cost_matrix, mean_cost
from datarax.functional.transport.marginals import marginals, positive_scalar
from datarax.functional.transport.potentials import Problem, plan_of, zero_potentials
from datarax.functional.transport.sweeps import solve


class GromovTransport(NamedTuple):
    r"""A plan between two structures and what is known of it.

    Attributes:
      plan: [n, m]; exactly 0 where a row or a column is masked.
      cost: the objective without its regularisation.
      regularised_cost: with $\varepsilon\, KL(P | a b^\top)$.
      converged: whether both errors are within the tolerance.
      error: the Euclidean norm of the movement of the plan in the last outer iteration.
      marginal_error: the larger norm of the errors of its row sums and of its column sums; where
        epsilon is below what a potential is rounded to, a plan that does not move may miss them.
    """

    plan: Float[Array, "n m"]
    cost: Float[Array, ""]
    regularised_cost: Float[Array, ""]
    converged: Bool[Array, ""]
    error: Float[Array, ""]
    marginal_error: Float[Array, ""]


def gromov_wasserstein(
    a_cost: Num[Array, "n n"],
    b_cost: Num[Array, "m m"],
    *,
    cross_cost: Num[Array, "n m"] | None = None,
    cross_weight: float | int = 0.5,
    a: Array | None = None,
    b: Array | None = None,
    a_mask: Array | None = None,
    b_mask: Array | None = None,
    epsilon: ScalarLike = 0.05,
    relative: bool = True,
    num_iterations: int = 50,
    inner_iterations: int = 200,
    tolerance: float | int = 1e-5,
) -> GromovTransport:
    r"""Entropic Gromov-Wasserstein with the square loss,

    $\min_P \sum_{ijkl} (A_{ik} - B_{jl})^2 P_{ij} P_{kl} + \varepsilon\, KL(P | a b^\top)$ over
    plans with row sums `a` and column sums `b`; with a `cross_cost` `C` and its weight `w`, the
    fused objective $(1 - w) \sum_{ijkl} \ldots + w \langle P, C \rangle + \varepsilon\, KL$.

    Each outer iteration is a balanced transport at the gradient of the objective. The gradient has
    its factor 2, as in POT: an implementation without it takes half our epsilon for the same plan.
    The problem is not convex: starting from $a b^\top$, as POT does, it finds a stationary point,
    and of structures whose points all look alike it is $a b^\top$ itself.

    Gradients hold the plan fixed, which is a constant: by the envelope theorem that of
    `regularised_cost` by the costs and epsilon is exact at convergence.

    Args:
      a_cost, b_cost: the distances (or any costs) within each set; need not be symmetric, and may
        be NaN or inf where a point is masked.
      cross_cost: costs between the sets, for the fused objective.
      cross_weight: its weight, in [0, 1]; read with a `cross_cost` only.
      a, b: weights [n] and [m], at least 0, each of sum 1; `None` shares 1 among the kept. A traced
        one that is negative, inf or NaN makes all NaN.
      a_mask, b_mask: bool [n] and [m], the points that there are.
      epsilon: strength of the regularisation, positive.
      relative: `epsilon` is in units of the mean of the gradient at $a b^\top$ (of 1 where that is
        0), which makes the plan independent of a common scale of the costs.
      num_iterations: the largest number of outer iterations.
      inner_iterations: the largest number of sweeps within each; they start at the last potentials.
      tolerance: of the movement of the plan, a tenth of it of the inner transport.

    Returns:
      A `GromovTransport`, at least float32. If either side is empty, all is 0 and it converged.

    Raises:
      TypeError: if costs or weights are not floating point or a mask not boolean.
      ValueError: if shapes do not fit, a weight is negative, inf or NaN, a number is not positive,
        or `cross_weight` outside [0, 1].

    Reference: Peyré, Cuturi and Solomon, 2016 (proposition 2, which misses a factor 2);
    Vayer et al., 2019, arXiv:1805.09114 (fused); `ot.gromov.entropic_gromov_wasserstein`.

    Example:
      >>> line = jnp.abs(jnp.arange(3.0)[:, None] ** 2 - jnp.arange(3.0) ** 2)
      >>> found = gromov_wasserstein(line, line[::-1, ::-1], epsilon=0.01)
      >>> found.plan.round(2).argmax(axis=1).tolist()
      [2, 1, 0]
    """
    counts = {"num_iterations": num_iterations, "inner_iterations": inner_iterations}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    if not 0 <= cross_weight <= 1:
        raise ValueError(f"cross_weight must be in [0, 1], got {cross_weight}")
    pair = _structures(
        a_cost,
        b_cost,
        cross_cost,
        weights=(a, b),
        masks=(a_mask, b_mask),
        weight=cross_weight,
    )
    independent = pair.a[:, None] * pair.b[None, :]
    unit = mean_cost(_gradient(pair, independent), pair.a, pair.b) if relative else None
    scale = positive_scalar(epsilon, name="epsilon", like=pair.cross, unit=unit)
    plan, error = _descend(
        *jax.lax.stop_gradient((pair, scale)),
        num_iterations=num_iterations,
        inner_iterations=inner_iterations,
        tolerance=tolerance,
    )
    value = (1 - pair.weight) * jnp.sum(_linearised(pair, plan) * plan)
    value = value + pair.weight * jnp.sum(pair.cross * plan)
    missed = jax.lax.stop_gradient((jnp.sum(plan, axis=1) - pair.a, jnp.sum(plan, axis=0) - pair.b))
    marginal_error = jnp.sqrt(jnp.maximum(*(jnp.sum(x**2) for x in missed)))
    return GromovTransport(
        plan=plan,
        cost=value,
        regularised_cost=value + scale * _divergence(plan, independent),
        converged=(error <= tolerance) & (marginal_error <= tolerance),
        error=error,
        marginal_error=marginal_error,
    )


class _Structures(NamedTuple):
    """Two structures, finite everywhere: costs within and across, weights, that of the cross."""

    a_cost: Array
    b_cost: Array
    cross: Array
    a: Array
    b: Array
    weight: float | int

    @property
    def transposed(self) -> "_Structures":
        """The same with every cost within read the other way."""
        return self._replace(a_cost=self.a_cost.T, b_cost=self.b_cost.T)


def _structures(
    a_cost: Array,
    b_cost: Array,
    cross_cost: Array | None,
    *,
    weights: tuple[Array | None, Array | None],
    masks: tuple[Array | None, Array | None],
    weight: float | int,
) -> _Structures:
    for name, cost in (("a_cost", a_cost), ("b_cost", b_cost)):
        check_floating(**{name: cost})
        check_rank(2, axes="[n, n]", **{name: cost})
        if cost.shape[0] != cost.shape[1]:
            raise ValueError(f"{name} must be square, got {cost.shape}")
    shape = (len(a_cost), len(b_cost))
    wide = accumulation_dtype(a_cost, b_cost)
    if cross_cost is None:
        weight, cross_cost = 0, jnp.zeros(shape, wide)
    elif cross_cost.shape != shape:
        raise ValueError(f"cross_cost must have shape {shape}, got {cross_cost.shape}")
    cross, a, b = marginals(cross_cost, *weights, a_mask=masks[0], b_mask=masks[1])
    wide = accumulation_dtype(a_cost, b_cost, cross)
    a_cost, b_cost = (
        jnp.where((mass > 0)[:, None] & (mass > 0)[None, :], cost.astype(wide), 0)
        for cost, mass in ((a_cost, a), (b_cost, b))
    )
    cross, a, b = (x.astype(wide) for x in (cost_matrix(cross), a, b))
    return _Structures(a_cost, b_cost, cross, a, b, weight)


def _linearised(pair: _Structures, plan: Array) -> Array:
    r"""$\sum_{kl} (A_{ik} - B_{jl})^2 P_{kl}$ for a plan with the marginals `a` and `b`."""
    squares = jnp.sum(pair.a_cost**2 * pair.a[None, :], axis=1)[:, None]
    squares = squares + jnp.sum(pair.b_cost**2 * pair.b[None, :], axis=1)[None, :]
    exact = jax.lax.Precision.HIGHEST
    moved = jnp.matmul(pair.a_cost, plan, precision=exact)
    return squares - 2 * jnp.matmul(moved, pair.b_cost.T, precision=exact)


def _gradient(pair: _Structures, plan: Array) -> Array:
    both = _linearised(pair, plan) + _linearised(pair.transposed, plan)
    return (1 - pair.weight) * both + pair.weight * pair.cross


def _descend(
    pair: _Structures,
    epsilon: Array,
    *,
    num_iterations: int,
    inner_iterations: int,
    tolerance: float | int,
) -> tuple[Array, Array]:
    """The plan after the outer iterations, and its last movement."""
    start = pair.a[:, None] * pair.b[None, :]
    problem = Problem(start, pair.a, pair.b, pair.a, pair.b, epsilon)

    def body(state: tuple) -> tuple:
        plan, potentials, _, step = state
        at_plan = problem._replace(cost=_gradient(pair, plan))
        potentials, _ = solve(
            at_plan, num_iterations=inner_iterations, tolerance=tolerance / 10, start=potentials
        )
        new = plan_of(at_plan, potentials)
        return new, potentials, jnp.sqrt(jnp.sum((new - plan) ** 2)), step + 1

    def unfinished(state: tuple) -> Array:
        return (state[3] < num_iterations) & (state[2] > tolerance)

    error = jnp.full((), jnp.inf, epsilon.dtype)
    state = (start, zero_potentials(problem), error, jnp.zeros((), jnp.int32))
    plan, _, error, _ = jax.lax.while_loop(unfinished, body, state)
    return plan, error


def _divergence(plan: Array, reference: Array) -> Array:
    there = (plan > 0) & (reference > 0)
    ratio = jnp.where(there, plan, 1) / jnp.where(there, reference, 1)
    return jnp.sum(plan * jnp.log(ratio) - plan + reference)
