r"""Sinkhorn's sweeps over tiles of rows: exact ones, and fast ones as long as they are exact.

An exact sweep is in the log domain, with the maximum of every sum taken out. A fast one absorbs
potentials $f^0, g^0$ in its kernel, $K_{ij} = e^{(f^0_i + g^0_j - C_{ij}) / \varepsilon}$, after
which only ratios are left: $s = K v$ and $t = u K$ with $v_j = c_j e^{(g_j - g^0_j)/\varepsilon}$
and $u_i = r_i e^{(f_i - f^0_i)/\varepsilon}$. Stored, the kernel serves many sweeps. Streaming,
each sweep absorbs the potentials it starts at, and a tile of rows is finished before the next one
is made: its $u_i$ go into `t` at once, so that a sweep takes one product of the points.

What a flushed or rounded-off term can take from a sum is bounded before the sum is believed:
entries of `K` and products lose at most the smallest normal number each. A sweep that fails this,
or overflows, is thrown away and made again in the log domain, from where the kernel is absorbed
anew.

Reference: Schmitzer, 2016, arXiv:1610.06519, section 3 (absorption); Dao et al., 2022 (tiles).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from datarax.functional.transport.costs import cost_matrix, cost_rows
from datarax.functional.transport.potentials import (
    LOG_ZERO,
    Potentials,
    Problem,
    dense_sweep,
    log_weight,
    moved,
    zero_potentials,
)

MEMORY_BUDGET = 2**28  # bytes: the kernel of 8192 by 8192 in float32
_TILE_BYTES = 2**22


class _Sides(NamedTuple):
    """What a sweep needs of rows and columns besides the cost; logarithms are -1e30 for none."""

    row_there: Array
    column_there: Array
    row_log_ratio: Array
    column_log_ratio: Array
    row_log_reference: Array
    column_log_reference: Array


class _Swept(NamedTuple):
    """What a sweep found: row potentials, log sums of the columns (without `g`), trustworthy."""

    rows: Array
    column_log_sums: Array
    exact: Array


def solve(
    problem: Problem,
    *,
    num_iterations: int,
    tolerance: float | int,
    unroll: bool = False,
    start: Potentials | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> tuple[Potentials, Array]:
    """The potentials, and how much the last sweep moved them.

    Args:
      problem: the problem.
      num_iterations: the largest number of sweeps.
      tolerance: sweeps end once no potential moves by more than `tolerance * epsilon`.
      unroll: make `num_iterations` sweeps that can be differentiated; otherwise the potentials are
        constants in every derivative, and memory does not grow with the sweeps.
      start: potentials to start at instead of 0.
      memory_budget: bytes that the stored kernel may take; above, it is made anew in every sweep.

    Returns:
      The potentials and the largest movement over `epsilon`, but for rounding at least
      `marginal_error`. Where epsilon is below what potentials are rounded to, they stay in place.
    """
    start = zero_potentials(problem) if start is None else start
    error = jnp.full((), jnp.inf, problem.epsilon.dtype)
    if 0 in problem.cost.shape:
        return start, jnp.zeros_like(error)
    if unroll:
        problem = problem._replace(cost=cost_matrix(problem.cost))
        (found, error), _ = jax.lax.scan(
            lambda state, _: (dense_sweep(problem, state[0]), None),
            (start, error),
            length=num_iterations,
        )
        return found, jax.lax.stop_gradient(error)
    problem, start = jax.lax.stop_gradient((problem, start))
    stored = math.prod(problem.cost.shape) * error.dtype.itemsize <= memory_budget
    return _alternate(problem, start, limits=(num_iterations, tolerance), stored=stored)


def tile_rows(n: int, m: int, *, itemsize: int = 4) -> int:
    """Rows of a tile: 4 MiB of a matrix [n, m], at least 8, at most all.

    Example:
      >>> tile_rows(4096, 4096), tile_rows(3, 5)
      (256, 3)
    """
    return min(n, max(8, _TILE_BYTES // (itemsize * max(m, 1))))


def _alternate(
    problem: Problem, start: Potentials, *, limits: tuple[int, float | int], stored: bool
) -> tuple[Potentials, Array]:
    """Exact sweeps until they move little, fast ones until one fails, and again."""
    sides, dtype = _sides(problem), problem.epsilon.dtype
    far = -0.35 * math.log(jnp.finfo(dtype).tiny)

    def unfinished(state: tuple) -> Array:
        return (state[2] < limits[0]) & (state[1] > limits[1])

    def exact(state: tuple) -> tuple:
        found, error = _close(problem, sides, state[0], _exact_sweep(problem, sides, state[0]))
        return found, error, state[2] + 1

    def round_of(state: tuple) -> tuple:
        state = jax.lax.while_loop(lambda s: unfinished(s) & (s[1] > far), exact, exact(state))
        base = state[0]
        kernel = _kernel(problem, sides, base) if stored else None

        def fast(inner: tuple) -> tuple:
            old, error, step, _ = inner
            if kernel is None:
                swept = _streaming_sweep(problem, sides, old)
            else:
                swept = _stored_sweep(problem, sides, old, base=base, kernel=kernel)
            found, moved_by = _close(problem, sides, old, swept)
            fine = swept.exact & jnp.isfinite(moved_by) & jnp.all(jnp.isfinite(found.columns))
            new = (found, moved_by, step + 1)
            kept = jax.tree.map(lambda x, y: jnp.where(fine, x, y), new, (old, error, step))
            return *kept, fine

        return jax.lax.while_loop(
            lambda s: unfinished(s) & s[3], fast, (*state, jnp.ones((), bool))
        )[:3]

    error = jnp.full((), jnp.inf, dtype)
    state = (start, error, jnp.zeros((), jnp.int32))
    found, error, _ = jax.lax.while_loop(unfinished, round_of, state)
    return found, error


def _sides(problem: Problem) -> _Sides:
    r, c = problem.row_reference, problem.column_reference
    there = problem.row_weights > 0, problem.column_weights > 0
    return _Sides(
        *there,
        log_weight(problem.row_weights) - log_weight(r),
        log_weight(problem.column_weights) - log_weight(c),
        log_weight(r, none=LOG_ZERO),
        log_weight(c, none=LOG_ZERO),
    )


def _close(
    problem: Problem, sides: _Sides, old: Potentials, swept: _Swept
) -> tuple[Potentials, Array]:
    """The columns and the level from their sums, and how far the sweep moved."""
    epsilon, f, h = problem.epsilon, swept.rows, old.level
    there = sides.column_there & jnp.any(sides.row_there)
    sums = swept.column_log_sums
    g = jnp.where(there, moved(problem, sides.column_log_ratio, sums), 0)
    # The rows alone may be where they began: their first sums can fit by chance.
    error = jnp.maximum(jnp.max(jnp.abs(f - old.rows)), jnp.max(jnp.abs(g - old.columns)))
    if problem.mass is not None:
        # The sums have the old level in them, which the total must not have.
        exponents = jnp.where(there, sides.column_log_reference + g / epsilon + sums, LOG_ZERO)
        total = jax.nn.logsumexp(exponents) - h / epsilon
        h = jnp.where(jnp.any(there), epsilon * (jnp.log(problem.mass) - total), 0)
        error = error + jnp.abs(h - old.level)  # both change what the rows of the plan sum to
    return Potentials(f, g, h), error / epsilon


def _exact_sweep(problem: Problem, sides: _Sides, old: Potentials) -> _Swept:
    epsilon, rate = problem.epsilon, 1 / problem.epsilon
    g = (old.columns + old.level) * rate
    m = problem.cost.shape[1]

    def step(carry: tuple[Array, Array], start: Array, size: int, new: Array) -> tuple:
        log_ratio, there, log_reference = (
            jax.lax.dynamic_slice_in_dim(x, start, size)
            for x in (sides.row_log_ratio, sides.row_there, sides.row_log_reference)
        )
        scaled = cost_rows(problem.cost, start, size) * rate
        exponents = (sides.column_log_reference + g)[None, :] - scaled
        f = jnp.where(there, moved(problem, log_ratio, jax.nn.logsumexp(exponents, axis=1)), 0)
        shifts = log_reference + (f + old.level) / epsilon
        exponents = jnp.where(new, shifts, LOG_ZERO)[:, None] - scaled
        top = jnp.maximum(carry[0], jnp.max(exponents, axis=0))
        total = carry[1] * jnp.exp(carry[0] - top)
        return (top, total + jnp.sum(jnp.exp(exponents - top[None, :]), axis=0)), f

    carry = jnp.full(m, 2 * LOG_ZERO, epsilon.dtype), jnp.zeros(m, epsilon.dtype)
    (top, total), f = _over_tiles(step, carry, shape=problem.cost.shape, like=epsilon)
    f = jnp.where(jnp.any(sides.column_there), f, 0)
    return _Swept(f, top + jnp.log(total), jnp.ones((), bool))


def _streaming_sweep(problem: Problem, sides: _Sides, old: Potentials) -> _Swept:
    epsilon, weights = problem.epsilon, problem.column_reference
    rate = 1 / epsilon  # a division of every entry would be felt
    first, second = _absorbed(problem, sides, old)
    rows = (first, old.rows, problem.row_reference, sides.row_there, sides.row_log_ratio)

    def step(carry: tuple, start: Array, size: int, new: Array) -> tuple:
        shift, f_old, reference, there, log_ratio = (
            jax.lax.dynamic_slice_in_dim(x, start, size) for x in rows
        )
        scaled = cost_rows(problem.cost, start, size) * rate
        kernel = jnp.exp(shift[:, None] + second[None, :] - scaled)
        sums = _product(kernel, weights)
        f = moved(problem, log_ratio, jnp.log(sums) - f_old / epsilon)
        f = jnp.where(there, f, 0)
        scaling = jnp.where(there, reference * jnp.exp((f - f_old) / epsilon), 0)
        exact = _trusted(sums, there, weights, sides.column_there) & _kept(scaling, there)
        scaling = jnp.where(new, scaling, 0)
        total, size_of_all, fine = carry
        total = total + _product(scaling, kernel)
        return (total, size_of_all + jnp.sum(scaling), fine & exact), f

    zero = jnp.zeros((), epsilon.dtype)
    carry = jnp.zeros_like(weights), zero, _kept(weights, sides.column_there)
    (sums, total, exact), f = _over_tiles(step, carry, shape=problem.cost.shape, like=zero)
    exact = exact & _above(sums, sides.column_there, total + len(f))
    return _Swept(f, jnp.log(sums) - old.columns / epsilon, exact)


def _stored_sweep(
    problem: Problem, sides: _Sides, old: Potentials, *, base: Potentials, kernel: Array
) -> _Swept:
    epsilon, rise = problem.epsilon, (old.level - base.level) / problem.epsilon
    weights = problem.column_reference * jnp.exp((old.columns - base.columns) / epsilon + rise)
    sums = _product(kernel, weights)
    f = moved(problem, sides.row_log_ratio, jnp.log(sums) - base.rows / epsilon)
    f = jnp.where(sides.row_there, f, 0)
    scaling = problem.row_reference * jnp.exp((f - base.rows) / epsilon)
    # Not kernel.T @ scaling: XLA:CPU transposes the kernel anew in every sweep.
    totals = _product(scaling, kernel)
    exact = _trusted(sums, sides.row_there, weights, sides.column_there)
    exact = exact & _trusted(totals, sides.column_there, scaling, sides.row_there)
    return _Swept(f, jnp.log(totals) - base.columns / epsilon + rise, exact)


def _absorbed(problem: Problem, sides: _Sides, base: Potentials) -> tuple[Array, Array]:
    """What is added to the rows and columns of the exponents of a kernel, -1e30 for none."""
    first = jnp.where(sides.row_there, (base.rows + base.level) / problem.epsilon, LOG_ZERO)
    return first, jnp.where(sides.column_there, base.columns / problem.epsilon, LOG_ZERO)


def _kernel(problem: Problem, sides: _Sides, base: Potentials) -> Array:
    first, second = _absorbed(problem, sides, base)
    return jnp.exp(first[:, None] + second[None, :] - cost_matrix(problem.cost) / problem.epsilon)


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _trusted(sums: Array, there: Array, scaling: Array, scaled: Array) -> Array:
    """Whether neither the sums nor what was summed lost a term that counts."""
    return _above(sums, there, jnp.sum(scaling) + len(scaling)) & _kept(scaling, scaled)


def _above(sums: Array, there: Array, lost: Array) -> Array:
    """Whether sums are exact to rounding if they lost so many of the smallest normal number."""
    kind = jnp.finfo(sums.dtype)
    return jnp.all(jnp.where(there, sums, jnp.inf) >= lost * (8 * kind.tiny / kind.eps))


def _kept(scaling: Array, there: Array) -> Array:
    """Whether all factors are far from the smallest normal number."""
    kind = jnp.finfo(scaling.dtype)
    return jnp.all(jnp.where(there, scaling, jnp.inf) >= kind.tiny / kind.eps)


def _over_tiles(step: Callable, carry: tuple, *, shape: tuple[int, int], like: Array) -> tuple:
    """`step(carry, start, size, new)` for each tile of rows; the last may begin in the one before.

    `new` is False for rows that were there already. Returns the carry and what the steps give for
    each row.
    """
    n, size = shape[0], tile_rows(*shape, itemsize=like.dtype.itemsize)

    def body(i: Array, state: tuple) -> tuple:
        start = jnp.minimum(i * size, n - size)
        new = start + jnp.arange(size) >= i * size
        carry, part = step(state[0], start, size, new)
        return carry, jax.lax.dynamic_update_slice_in_dim(state[1], part, start, 0)

    return jax.lax.fori_loop(0, -(-n // size), body, (carry, jnp.zeros(n, like.dtype)))
