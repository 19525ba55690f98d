r"""Sinkhorn's algorithm in the log domain, on which all entropic transport rests.

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

from datarax.functional.masking import masked_logsumexp


class Problem(NamedTuple):
    """What is transported at what cost; a row or column of weight 0 does not exist.

    Attributes:
      cost: [n, m], finite everywhere.
      row_weights, column_weights: [n] and [m], at least 0.
      row_reference, column_reference: the factors of the reference measure, 0 where the weight is.
      epsilon: strength of the regularisation, a positive scalar.
      relaxation: scalar, how dear it is to miss the weights; `None` forces or bounds them.
      mass: scalar, what is to be transported in all; `None` leaves it to the weights.
    """

    cost: Array
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
    dtype = problem.cost.dtype
    return Potentials(jnp.zeros(n, dtype), jnp.zeros(m, dtype), jnp.zeros((), dtype))


def solve(
    problem: Problem,
    *,
    num_iterations: int,
    tolerance: float | int,
    unroll: bool = False,
    start: Potentials | None = None,
) -> tuple[Potentials, Array]:
    """The potentials, and how much the last sweep moved them.

    Args:
      problem: the problem.
      num_iterations: the largest number of sweeps.
      tolerance: sweeps end once no potential moves by more than `tolerance * epsilon`.
      unroll: make `num_iterations` sweeps that can be differentiated; otherwise the potentials are
        constants in every derivative, and memory does not grow with the sweeps.
      start: potentials to start at instead of 0.

    Returns:
      The potentials and the largest movement over `epsilon`: in the balanced problem that is the
      logarithm of the largest ratio between a row's sum and its weight.
    """
    start = zero_potentials(problem) if start is None else start
    error = jnp.full((), jnp.inf, problem.cost.dtype)
    if unroll:
        (found, error), _ = jax.lax.scan(
            lambda state, _: (_sweep(problem, state[0]), None),
            (start, error),
            length=num_iterations,
        )
        return found, jax.lax.stop_gradient(error)
    problem, start = jax.lax.stop_gradient((problem, start))

    def unfinished(state: tuple[Potentials, Array, Array]) -> Array:
        return (state[2] < num_iterations) & (state[1] > tolerance)

    def body(state: tuple[Potentials, Array, Array]) -> tuple[Potentials, Array, Array]:
        return *_sweep(problem, state[0]), state[2] + 1

    found, error, _ = jax.lax.while_loop(unfinished, body, (start, error, jnp.zeros((), jnp.int32)))
    return found, error


def plan_of(problem: Problem, potentials: Potentials) -> Array:
    """The plan [n, m] of some potentials; 0 in rows and columns without weight."""
    there = _support(problem)
    exponents = potentials.rows[:, None] + potentials.columns[None, :] + potentials.level
    exponents = jnp.where(there, (exponents - problem.cost) / problem.epsilon, 0)
    reference = problem.row_reference[:, None] * problem.column_reference[None, :]
    return jnp.where(there, reference * jnp.exp(exponents), 0)


def dual_value(problem: Problem, potentials: Potentials) -> Array:
    r"""The dual objective, at its maximum the regularised cost.

    Its partial derivatives by cost, weights and $\varepsilon$ with the potentials held fixed are
    those of the maximum (Danskin's theorem), and its error is of second order in the potentials'.
    """
    f, g, h = potentials
    a, b = problem.row_weights, problem.column_weights
    reference = jnp.sum(problem.row_reference) * jnp.sum(problem.column_reference)
    value = problem.epsilon * (reference - jnp.sum(plan_of(problem, potentials)))
    if problem.relaxation is not None:
        rho = problem.relaxation
        missed = jnp.sum(a * jnp.expm1(-f / rho)) + jnp.sum(b * jnp.expm1(-g / rho))
        return value - rho * missed
    value = value + jnp.sum(f * a) + jnp.sum(g * b)
    return value if problem.mass is None else value + h * problem.mass


def _sweep(problem: Problem, old: Potentials) -> tuple[Potentials, Array]:
    cost, epsilon = problem.cost, problem.epsilon
    there = _support(problem)
    log_r, log_c = _log(problem.row_reference), _log(problem.column_reference)
    log_a = _log(problem.row_weights) - log_r
    log_b = _log(problem.column_weights) - log_c
    h = old.level

    def update(log_ratio: Array, exponents: Array, *, axis: int) -> Array:
        moved = epsilon * (log_ratio - masked_logsumexp(exponents, where=there, axis=axis))
        if problem.relaxation is not None:
            moved = moved * problem.relaxation / (problem.relaxation + epsilon)
        if problem.mass is not None:
            moved = jnp.minimum(moved, 0)
        return jnp.where(jnp.any(there, axis=axis), moved, 0)

    f = update(log_a, log_c[None, :] + (old.columns[None, :] + h - cost) / epsilon, axis=1)
    g = update(log_b, log_r[:, None] + (f[:, None] + h - cost) / epsilon, axis=0)
    error = jnp.max(jnp.abs(f - old.rows), initial=0)
    if problem.mass is not None:
        exponents = log_r[:, None] + log_c[None, :] + (f[:, None] + g[None, :] - cost) / epsilon
        total = masked_logsumexp(exponents.reshape(-1), where=there.reshape(-1))
        h = jnp.where(jnp.any(there), epsilon * (jnp.log(problem.mass) - total), 0)
        error = jnp.maximum(error, jnp.abs(h - old.level))
    return Potentials(f, g, h), error / epsilon


def _support(problem: Problem) -> Array:
    return (problem.row_weights > 0)[:, None] & (problem.column_weights > 0)[None, :]


def _log(x: Array) -> Array:
    return jnp.log(jnp.where(x > 0, x, 1))
