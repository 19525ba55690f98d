r"""The dual variables of entropic transport, and what follows from them.

Every plan has the form $P_{ij} = R_{ij}\, e^{(f_i + g_j + h - C_{ij}) / \varepsilon}$, where the
reference measure is $R = r c^\top$. The problems differ in how a sweep updates the potentials:

balanced: $f_i = \varepsilon \log(a_i / \sum_j R_{ij} e^{(g_j - C_{ij}) / \varepsilon})$;
unbalanced: the same times $\rho / (\rho + \varepsilon)$;
partial: the same, at most 0, and `h` such that the plan has the mass that is asked for.

Each is a block coordinate ascent of the dual, which is concave.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from datarax.functional.transport.costs import Cost, cost_matrix

LOG_ZERO = -1e30  # the logarithm of no weight: its exponential is 0, its differences are numbers


class Problem(NamedTuple):
    """What is transported at what cost; a row or column of weight 0 does not exist.

    Attributes:
      cost: [n, m], finite everywhere, or the points it comes from.
      row_weights, column_weights: [n] and [m], at least 0.
      row_reference, column_reference: the factors of the reference measure, 0 where the weight is.
      epsilon: strength of the regularisation, a positive scalar.
      relaxation: scalar, how dear it is to miss the weights; `None` forces or bounds them.
      mass: scalar, what is to be transported in all; `None` leaves it to the weights.
    """

    cost: Cost
    row_weights: Array
    column_weights: Array
    row_reference: Array
    column_reference: Array
    epsilon: Array
    relaxation: Array | None = None
    mass: Array | None = None


class Potentials(NamedTuple):
    """The dual variables: `rows` [n], `columns` [m], and the scalar `level`, 0 without a mass."""

    rows: Array
    columns: Array
    level: Array


def zero_potentials(problem: Problem) -> Potentials:
    """Where the sweeps start."""
    n, m = problem.cost.shape
    dtype = problem.epsilon.dtype
    return Potentials(jnp.zeros(n, dtype), jnp.zeros(m, dtype), jnp.zeros((), dtype))


def plan_of(problem: Problem, potentials: Potentials) -> Array:
    """The plan [n, m] of some potentials; 0 in rows and columns without weight."""
    there = _support(problem)
    exponents = potentials.rows[:, None] + potentials.columns[None, :] + potentials.level
    exponents = jnp.where(there, (exponents - cost_matrix(problem.cost)) / problem.epsilon, 0)
    reference = problem.row_reference[:, None] * problem.column_reference[None, :]
    return jnp.where(there, reference * jnp.exp(exponents), 0)


def dual_value(problem: Problem, potentials: Potentials, mass: Array) -> Array:
    r"""The dual objective, at its maximum the regularised cost; `mass` is that of the plan.

    Its partial derivatives by cost, weights and $\varepsilon$ with the potentials held fixed are
    those of the maximum (Danskin's theorem), and its error is of second order in the potentials'.
    """
    f, g, h = potentials
    a, b = problem.row_weights, problem.column_weights
    reference = jnp.sum(problem.row_reference) * jnp.sum(problem.column_reference)
    value = problem.epsilon * (reference - mass)
    if problem.relaxation is not None:
        rho = problem.relaxation
        missed = jnp.sum(a * jnp.expm1(-f / rho)) + jnp.sum(b * jnp.expm1(-g / rho))
        return value - rho * missed
    value = value + jnp.sum(f * a) + jnp.sum(g * b)
    return value if problem.mass is None else value + h * problem.mass


def marginal_error(problem: Problem, potentials: Potentials, sums: tuple[Array, Array]) -> Array:
    r"""How far the sums of a plan are from those that the problem asks for.

    At the optimum the row sums are `a`, in the unbalanced problem $a e^{-f / \rho}$, and in the
    partial one at most `a`, which holds with equality where $f < 0$; likewise the columns.

    Args:
      problem: the problem.
      potentials: those of the plan.
      sums: of the rows [n] and the columns [m] of the plan.

    Returns:
      The largest logarithm of a ratio, in absolute value: at least 0, NaN where a sum is no number.
      Weights that are hardly normal numbers do not count.
    """
    kind = jnp.finfo(problem.epsilon.dtype)
    nothing = kind.tiny / kind.eps

    def of_side(weights: Array, potential: Array, total: Array) -> Array:
        wanted = weights
        if problem.relaxation is not None:
            wanted = weights * jnp.exp(-potential / problem.relaxation)
        ratio = jnp.log((total + nothing) / (wanted + nothing))
        if problem.mass is not None:
            ratio = jnp.where(potential < 0, ratio, jnp.maximum(ratio, 0))
        return jnp.max(jnp.where(weights > 0, jnp.abs(ratio), 0), initial=0)

    found = jnp.maximum(
        of_side(problem.row_weights, potentials.rows, sums[0]),
        of_side(problem.column_weights, potentials.columns, sums[1]),
    )
    if problem.mass is None:
        return found
    missed = jnp.abs(jnp.log(jnp.sum(sums[0]) / problem.mass))
    return jnp.where(jnp.any(problem.row_weights > 0), jnp.maximum(found, missed), found)


def moved(problem: Problem, log_ratio: Array, log_sum: Array) -> Array:
    r"""The potential that a sweep sets, from $\log(a / r)$ and the logarithm of its sums."""
    new = problem.epsilon * (log_ratio - log_sum)
    if problem.relaxation is not None:
        new = new * problem.relaxation / (problem.relaxation + problem.epsilon)
    return new if problem.mass is None else jnp.minimum(new, 0)


def log_weight(x: Array, *, none: float | int = 0) -> Array:
    """The logarithm of a weight, `none` where there is none."""
    return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)), none)


def dense_sweep(problem: Problem, old: Potentials) -> tuple[Potentials, Array]:
    """One sweep that can be differentiated, and how far it moved a potential, over epsilon."""
    cost, epsilon, h = cost_matrix(problem.cost), problem.epsilon, old.level
    rows, columns = problem.row_weights > 0, problem.column_weights > 0
    log_r = log_weight(problem.row_reference, none=LOG_ZERO)
    log_c = log_weight(problem.column_reference, none=LOG_ZERO)
    log_a = log_weight(problem.row_weights, none=LOG_ZERO) - log_r
    log_b = log_weight(problem.column_weights, none=LOG_ZERO) - log_c

    def update(log_ratio: Array, exponents: Array, *, axis: int, there: Array) -> Array:
        new = moved(problem, log_ratio, jax.nn.logsumexp(exponents, axis=axis))
        return jnp.where(there & jnp.any(rows) & jnp.any(columns), new, 0)

    exponents = (log_c + (old.columns + h) / epsilon)[None, :] - cost / epsilon
    f = update(log_a, exponents, axis=1, there=rows)
    exponents = (log_r + (f + h) / epsilon)[:, None] - cost / epsilon
    g = update(log_b, exponents, axis=0, there=columns)
    # The rows alone may be where they began: their first sums can fit by chance.
    error = jnp.maximum(jnp.max(jnp.abs(f - old.rows)), jnp.max(jnp.abs(g - old.columns)))
    if problem.mass is not None:
        exponents = (log_r + f / epsilon)[:, None] + (log_c + g / epsilon)[None, :] - cost / epsilon
        total = jax.nn.logsumexp(exponents)
        there = jnp.any(rows) & jnp.any(columns)
        h = jnp.where(there, epsilon * (jnp.log(problem.mass) - total), 0)
        error = error + jnp.abs(h - old.level)  # both change what the rows of the plan sum to
    return Potentials(f, g, h), error / epsilon


def _support(problem: Problem) -> Array:
    return (problem.row_weights > 0)[:, None] & (problem.column_weights > 0)[None, :]
