"""Plans between points, of which no more than a few rows exist at a time."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from datarax.functional.transport.costs import PointCost, cost_matrix
from datarax.functional.transport.potentials import Potentials, Problem, plan_of
from datarax.functional.transport.sweeps import tile_rows


class PointPlan(NamedTuple):
    """The plan of a transport between points, by its problem and potentials.

    `transport_features` takes it as it takes a matrix.
    """

    problem: Problem
    potentials: Potentials

    @property
    def shape(self) -> tuple[int, int]:
        """[n, m], the shape of the matrix."""
        return self.problem.cost.shape

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of the matrix."""
        return self.problem.epsilon.dtype

    def matrix(self) -> Array:
        """The plan [n, m], whole."""
        return plan_of(self.problem, self.potentials)

    @property
    def transposed(self) -> "PointPlan":
        """The plan from the columns to the rows."""
        cost, a, b, r, c, *others = self.problem
        turned = PointCost(cost.columns, cost.rows, cost.column_offset, cost.row_offset)
        f, g, h = self.potentials
        return PointPlan(Problem(turned, b, a, c, r, *others), Potentials(g, f, h))

    def masked(self, keep: Array) -> "PointPlan":
        """The plan with nothing for the columns that are not kept."""
        weights = jnp.where(keep, self.problem.column_weights, 0)
        return self._replace(problem=self.problem._replace(column_weights=weights))


def plan_row_sums(plan: PointPlan) -> Array:
    """The row sums [n] of a plan; their derivative takes one tile of rows at a time as well.

    Example:
      >>> cost = PointCost(jnp.zeros((2, 1)), jnp.zeros((1, 1)), jnp.zeros(2), jnp.zeros(1))
      >>> a, b = jnp.array([0.5, 0.25]), jnp.ones(1)
      >>> problem = Problem(cost, a, b, a, b, jnp.ones(()))
      >>> plan = PointPlan(problem, Potentials(jnp.zeros(2), jnp.zeros(1), jnp.zeros(())))
      >>> plan_row_sums(plan).tolist(), plan_row_sums(plan.transposed).tolist()
      ([0.5, 0.25], [0.75])
    """
    return _by_rows(plan, None, lambda part, _: jnp.sum(part, axis=1))


def plan_cost(plan: PointPlan, cost: PointCost) -> Array:
    r"""$\langle P, C \rangle$; the cost may be differentiated where the plan is not."""
    return jnp.sum(_by_rows(plan, cost, lambda part, tile: jnp.sum(part * tile, axis=1)))


def plan_product(plan: PointPlan, values: Array) -> tuple[Array, Array]:
    """The plan times values [m, e], and its row sums [n]."""

    def product(part: Array, _: Array | None) -> tuple[Array, Array]:
        exact = jax.lax.Precision.HIGHEST
        return jnp.matmul(part, values, precision=exact), jnp.sum(part, axis=1)

    return _by_rows(plan, None, product)


def _by_rows(
    plan: PointPlan, cost: PointCost | None, function: Callable[[Array, Array | None], Any]
) -> Any:
    """What a function makes of tiles of rows of the plan and the cost, for each row."""
    problem, (f, g, h) = plan
    n, m = plan.shape
    # Half the rows of a sweep's tile: a derivative holds several of them.
    size = tile_rows(n, m, itemsize=2 * plan.dtype.itemsize) if n else 1
    known = [x for x in (problem.cost, cost) if x is not None]
    costs = tuple((x.rows, x.row_offset) for x in known)
    rows = (costs, problem.row_weights, problem.row_reference, f)

    def tiles(x: Array) -> Array:
        padding = [(0, -n % size)] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, padding).reshape(-1, size, *x.shape[1:])

    @partial(jax.checkpoint, prevent_cse=False)
    def step(_: None, tile: tuple) -> tuple[None, Any]:
        points, weights, reference, f = tile
        parts = [
            x._replace(rows=rows, row_offset=offset)
            for x, (rows, offset) in zip(known, points, strict=True)
        ]
        part = problem._replace(cost=parts[0], row_weights=weights, row_reference=reference)
        made = plan_of(part, Potentials(f, g, h))
        return None, function(made, None if cost is None else cost_matrix(parts[1]))

    _, found = jax.lax.scan(step, None, jax.tree.map(tiles, rows))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:n], found)
