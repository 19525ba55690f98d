"""What it costs to bring one vector to another: as a matrix, or as the vectors it comes from."""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array


class PointCost(NamedTuple):
    r"""The cost $\max(p_i + q_j - x_i \cdot y_j, 0)$ of two sets of vectors, not yet a matrix.

    Attributes:
      rows: `x` [n, d], twice the vectors if the cost is their squared distance.
      columns: `y` [m, d].
      row_offset, column_offset: `p` [n] and `q` [m].
    """

    rows: Array
    columns: Array
    row_offset: Array
    column_offset: Array

    @property
    def shape(self) -> tuple[int, int]:
        """[n, m], the shape of the matrix."""
        return len(self.rows), len(self.columns)

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of the matrix."""
        return self.rows.dtype


Cost: TypeAlias = Array | PointCost


def cost_matrix(cost: Cost) -> Array:
    """The matrix [n, m] of a cost.

    Example:
      >>> cost_matrix(PointCost(jnp.ones((1, 1)), jnp.ones((2, 1)), jnp.ones(1), jnp.ones(2)))
      Array([[1., 1.]], dtype=float32)
    """
    if not isinstance(cost, PointCost):
        return cost
    products = jnp.matmul(cost.rows, cost.columns.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.maximum(cost.row_offset[:, None] + cost.column_offset[None, :] - products, 0)


def cost_rows(cost: Cost, start: Array | int, size: int) -> Array:
    """The rows [size, m] of the matrix from `start`, which must leave so many.

    Example:
      >>> cost_rows(jnp.array([[1.0], [2.0], [3.0]]), 1, 2).tolist()
      [[2.0], [3.0]]
    """
    if not isinstance(cost, PointCost):
        return jax.lax.dynamic_slice_in_dim(cost, start, size)
    part = (jax.lax.dynamic_slice_in_dim(x, start, size) for x in (cost.rows, cost.row_offset))
    rows, offset = part
    return cost_matrix(cost._replace(rows=rows, row_offset=offset))


def keep_cost(cost: Cost, row_weights: Array, column_weights: Array) -> Cost:
    """The cost in the dtype of the weights, harmless where one of the weights is 0.

    Example:
      >>> keep_cost(jnp.array([[jnp.nan, 2.0]]), jnp.ones(1), jnp.array([0.0, 1.0])).tolist()
      [[0.0, 2.0]]
    """
    first, second = row_weights > 0, column_weights > 0
    wide = row_weights.dtype
    if not isinstance(cost, PointCost):
        return jnp.where(first[:, None] & second[None, :], cost.astype(wide), 0)
    return PointCost(
        rows=jnp.where(first[:, None], cost.rows.astype(wide), 0),
        columns=jnp.where(second[:, None], cost.columns.astype(wide), 0),
        row_offset=jnp.where(first, cost.row_offset.astype(wide), 0),
        column_offset=jnp.where(second, cost.column_offset.astype(wide), 0),
    )


def mean_cost(cost: Cost, a: Array, b: Array) -> Array:
    r"""The mean cost of independent weights, $a^\top C b / \sum a_i b_j$; 0 without weights.

    That of points takes no matrix; below what rounding can tell from 0 it is 0.

    Example:
      >>> mean_cost(jnp.array([[1.0, 3.0]]), jnp.ones(1), jnp.ones(2))
      Array(2., dtype=float32)
    """
    sums = jnp.sum(a), jnp.sum(b)
    total = sums[0] * sums[1]
    total = jnp.where(total > 0, total, 1)
    if not isinstance(cost, PointCost):
        return jnp.sum(a[:, None] * cost * b[None, :]) / total
    first, second = jnp.sum(a * cost.row_offset), jnp.sum(b * cost.column_offset)
    offsets = first * sums[1] + second * sums[0]
    exact = jax.lax.Precision.HIGHEST
    means = [jnp.matmul(w, x, precision=exact) for w, x in ((a, cost.rows), (b, cost.columns))]
    mean = (offsets - jnp.sum(means[0] * means[1])) / total
    noise = 8 * jnp.finfo(mean.dtype).eps * offsets / total
    return jnp.where(mean > noise, mean, 0)
