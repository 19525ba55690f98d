r"""Log-sum-exps of the rows and columns of $L = s\,x y^\top$ in O(n d) memory, differentiable.

Reverse mode only. Products of the size of L, where all is differentiated: both rows and columns 4,
rows alone 3, a matrix with itself 3; without differentiation 1.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from datarax.functional.checks import accumulation_dtype
from datarax.functional.contrastive.marks import Marks, with_diagonal
from datarax.functional.contrastive.rules import (
    Sides,
    as_arrays,
    as_cotangent,
    dense_cotangent,
    level_of,
    slope_alone,
    values_of,
)
from datarax.functional.contrastive.tiled_softmax import (
    Statistics,
    Weights,
    finite,
    log_sum,
    own_weights,
    softmax_gradients,
    softmax_row_gradients,
    softmax_statistics,
)
from datarax.functional.contrastive.tiles import Tiling, narrowed, row_dot_products


class LogSums(NamedTuple):
    """Of the rows [n] and the columns [m], 0 for those without pairs; and the own logits [n]."""

    rows: Array
    columns: Any
    own: Any


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def both_logsumexp(tiling: Tiling, x: Array, y: Array, scale: Array, marks: Marks) -> LogSums:
    """Of rows and columns, for x and y of one shape: row `i` of y is the own column of row `i`."""
    return _log_sums(_both_statistics(tiling, x, y, scale=scale, marks=marks))


def _both_statistics(
    tiling: Tiling, x: Array, y: Array, *, scale: Array, marks: Marks
) -> Statistics:
    xs, ys = (narrowed(v, tiling.operands) for v in (x, y))
    return softmax_statistics(xs, ys, scale=scale, marks=with_diagonal(marks, xs), tile=tiling.tile)


def _both_forward(tiling: Tiling, x: Any, y: Any, scale: Any, marks: Any) -> tuple[LogSums, Any]:
    sides = Sides(x.perturbed, y.perturbed, scale.perturbed)
    arguments = values_of((x, y, scale, marks))
    found = _both_statistics(tiling, *arguments[:2], scale=arguments[2], marks=arguments[3])
    return _log_sums(found), (sides, arguments, found)


def _both_backward(tiling: Tiling, residuals: Any, cotangents: Any) -> tuple:
    sides, (x, y, scale, marks), stats = as_arrays(residuals)
    g, h, q = (dense_cotangent(c) for c in cotangents)
    xs, ys = (narrowed(v, tiling.operands) for v in (x, y))
    marks = with_diagonal(marks, xs)
    weights = _weights(stats, g, h)
    own = own_weights(stats.own, q, weights, marks=marks)
    found = softmax_gradients(
        xs,
        ys,
        scale=scale,
        marks=marks,
        weights=weights._replace(own=own, partners=ys),
        tile=tiling.tile,
        sides=(sides.x, sides.y),
        start=_mirrored(xs, own, scale) if sides.y else None,
    )
    return _cotangents(sides, (x, y, scale), (found.x, found.y, found.scale))


both_logsumexp.defvjp(_both_forward, _both_backward, symbolic_zeros=True)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def row_logsumexp(tiling: Tiling, x: Array, y: Array, scale: Array, marks: Marks) -> LogSums:
    """Of the rows alone, for y of at least as many rows as x: row `i` of y is its own column.

    The gradients are formed in the forward pass, that of y for equal cotangents of the rows that
    `marks` keeps (as a mean has them); for others it is formed again, at 2 more products.
    """
    xs, ys = (narrowed(v, tiling.operands) for v in (x, y))
    found = softmax_statistics(
        xs, ys, scale=scale, marks=with_diagonal(marks, xs), tile=tiling.tile, columns=False
    )
    return _log_sums(found)


def _row_forward(tiling: Tiling, x: Any, y: Any, scale: Any, marks: Any) -> tuple[LogSums, Any]:
    sides = Sides(x.perturbed, y.perturbed, scale.perturbed)
    arguments = x.value, y.value, scale.value, values_of(marks)
    xs, ys = (narrowed(v, tiling.operands) for v in arguments[:2])
    found, of_x, of_y = softmax_row_gradients(
        xs,
        ys,
        scale=scale.value,
        marks=with_diagonal(arguments[3], xs),
        tile=tiling.tile,
        sides=(sides.x or not sides.y, sides.y),
    )
    return _log_sums(found), (sides, arguments, found, of_x, of_y)


def _row_backward(tiling: Tiling, residuals: Any, cotangents: Any) -> tuple:
    sides, (x, y, scale, marks), stats, of_x, of_y = as_arrays(residuals)
    g, _, q = (dense_cotangent(c) for c in cotangents)
    n = x.shape[0]
    xs, ys = (narrowed(v, tiling.operands) for v in (x, y))
    marks = with_diagonal(marks, xs)
    own = own_weights(stats.own, q, _weights(stats, g, None), marks=marks)
    d_x = d_y = d_scale = None
    if of_y is not None:
        again, others = partial(_columns_again, tiling.tile), (xs, ys, scale, marks, stats)
        level, equal = level_of(g, marks.rows)

        def formed() -> tuple[Array, Array]:
            found = _columns_formed(of_y, ys, factor=level, scale=scale)
            return jax.tree.map(jnp.add, found, slope_alone(again, g, others))

        d_y, d_scale = lax.cond(equal, formed, lambda: again(g, others))
        d_y = d_y.at[:n].add(_mirrored(xs, own, scale))
        d_scale = d_scale + jnp.sum(own * row_dot_products(xs, ys[:n]))
    if of_x is not None:
        d_x = scale * (g[:, None] * of_x + own[:, None] * ys[:n].astype(scale.dtype))
        # Row by row, where the two nearly cancel, before the sum over rows.
        by_row = g * row_dot_products(of_x, xs) + own * row_dot_products(xs, ys[:n])
        d_scale = jnp.sum(by_row)
    return _cotangents(sides, (x, y, scale), (d_x, d_y, d_scale))


row_logsumexp.defvjp(_row_forward, _row_backward, symbolic_zeros=True)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def self_logsumexp(tiling: Tiling, z: Array, scale: Array, marks: Marks) -> LogSums:
    """Of the rows of z with themselves. `marks` are symmetric, `own` its own inverse or `None`."""
    return _log_sums(_self_statistics(tiling, z, scale, marks))


def _self_statistics(tiling: Tiling, z: Array, scale: Array, marks: Marks) -> Statistics:
    zs = narrowed(z, tiling.operands)
    return softmax_statistics(zs, zs, scale=scale, marks=marks, tile=tiling.tile, columns=False)


def _self_forward(tiling: Tiling, z: Any, scale: Any, marks: Any) -> tuple[LogSums, Any]:
    arguments = values_of((z, scale, marks))
    found = _self_statistics(tiling, *arguments)
    return _log_sums(found), (Sides(z.perturbed, False, scale.perturbed), arguments, found)


def _self_backward(tiling: Tiling, residuals: Any, cotangents: Any) -> tuple:
    sides, (z, scale, marks), stats = as_arrays(residuals)
    g, _, q = (dense_cotangent(c) for c in cotangents)
    zs = narrowed(z, tiling.operands)
    # L is symmetric, so the sides of rows and of columns are one product with both weights.
    weights = _weights(stats._replace(column_max=stats.row_max, column_sum=stats.row_sum), g, g)
    if marks.own is not None:
        own = own_weights(stats.own, q + q[marks.own], weights, marks=marks)
        weights = weights._replace(own=own, partners=zs[marks.own])
    found = softmax_gradients(
        zs,
        zs,
        scale=scale,
        marks=marks,
        weights=weights,
        tile=tiling.tile,
        sides=(sides.x, False),
    )
    gradients = (found.x, None, found.scale / 2)
    d_z, _, d_scale, _ = _cotangents(sides, (z, z, scale), gradients)
    return d_z, d_scale, None


self_logsumexp.defvjp(_self_forward, _self_backward, symbolic_zeros=True)


def _log_sums(found: Statistics) -> LogSums:
    columns = None
    if found.column_max is not None:
        columns = log_sum(found.column_max, found.column_sum)
    return LogSums(log_sum(found.row_max, found.row_sum), columns, found.own)


def _weights(stats: Statistics, g: Array, h: Array | None) -> Weights:
    """Of e^(L - max), so that each row's P adds up to 1 whatever the log-sum-exp was rounded to."""
    rows = finite(stats.row_max), g / jnp.where(stats.row_sum == 0, 1, stats.row_sum)
    if h is None:
        return Weights(*rows)
    columns = finite(stats.column_max), h / jnp.where(stats.column_sum == 0, 1, stats.column_sum)
    return Weights(*rows, *columns)


def _columns_formed(of_y: Array, y: Array, *, factor: Array, scale: Array) -> tuple[Array, Array]:
    return scale * factor * of_y, factor * jnp.sum(row_dot_products(of_y, y))


def _columns_again(tile: int, g: Array, others: tuple) -> tuple[Array, Array]:
    x, y, scale, marks, stats = others
    weights = _weights(stats, g, None)
    found = softmax_gradients(
        x, y, scale=scale, marks=marks, weights=weights, tile=tile, sides=(False, True)
    )
    return found.y, found.scale


def _mirrored(x: Array, own: Array, scale: Array) -> Array:
    return (scale * own)[:, None] * x.astype(accumulation_dtype(x))


def _cotangents(sides: Sides, primals: tuple, gradients: tuple) -> tuple:
    wanted = (sides.x, sides.y, sides.scale)
    found = zip(gradients, primals, wanted, strict=True)
    return (*(as_cotangent(g, p, wanted=want) for g, p, want in found), None)
