r"""The sigmoid loss of rows against all columns in O(n d) memory, differentiable (reverse mode).

Products of the size of L where all is differentiated: 3; without differentiation 1.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from datarax.functional.contrastive.marks import Marks, with_diagonal
from datarax.functional.contrastive.rules import (
    Sides,
    as_arrays,
    as_cotangent,
    level_of,
    slope_alone,
    values_of,
)
from datarax.functional.contrastive.tiled_sigmoid import (
    Line,
    own_slopes,
    sigmoid_column_gradients,
    sigmoid_row_gradients,
    sigmoid_sums,
)
from datarax.functional.contrastive.tiles import Tiling, narrowed, row_dot_products


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def sigmoid_rows(tiling: Tiling, x: Array, y: Array, line: Line, marks: Marks) -> Array:
    """The losses [n], for y of at least as many rows as x: row `i` of y is its own column.

    The gradients are formed in the forward pass, that of y for equal cotangents of the rows that
    `marks` keeps (as a mean has them); for others it is formed again, at 2 more products.
    """
    xs, ys = (narrowed(v, tiling.operands) for v in (x, y))
    return sigmoid_sums(xs, ys, line=line, marks=marks, tile=tiling.tile)


def _forward(tiling: Tiling, x: Any, y: Any, line: Any, marks: Any) -> tuple[Array, Any]:
    sides = Sides(x.perturbed, y.perturbed, line.scale.perturbed or line.bias.perturbed)
    arguments = values_of((x, y, line, marks))
    xs, ys = (narrowed(v, tiling.operands) for v in arguments[:2])
    found = sigmoid_row_gradients(
        xs,
        ys,
        line=arguments[2],
        marks=with_diagonal(arguments[3], xs),
        tile=tiling.tile,
        sides=(sides.x or not sides.y, sides.y),
    )
    return found[0].losses, (sides, arguments, found)


def _backward(tiling: Tiling, residuals: Any, g: Array) -> tuple:
    sides, (x, y, line, marks), (sums, of_x, of_y) = as_arrays(residuals)
    xs, ys = (narrowed(v, tiling.operands) for v in (x, y))
    marks, wide, n = with_diagonal(marks, xs), g.dtype, x.shape[0]
    own = g * own_slopes(sums.own, marks=marks)
    d_x = d_y = d_scale = None
    if of_y is not None:
        level, equal = level_of(g, marks.rows)
        again, others = partial(_columns_again, tiling.tile), (xs, ys, line, marks)
        d_y = lax.cond(
            equal,
            lambda: level * of_y + slope_alone(again, g, others),
            lambda: again(g, others),
        )
        d_y = d_y.at[:n].add(own[:, None] * xs.astype(wide))
        d_scale = jnp.sum(row_dot_products(d_y, ys))
    if of_x is not None:
        d_x = g[:, None] * of_x + own[:, None] * ys[:n].astype(wide)
        d_scale = jnp.sum(row_dot_products(d_x, xs))
    gradients = [None if d is None else line.scale * d for d in (d_x, d_y)]
    of_line = Line(
        as_cotangent(d_scale, line.scale, wanted=sides.scale),
        as_cotangent(jnp.sum(g * sums.slopes + own), line.bias, wanted=sides.scale),
    )
    sided = zip(gradients, (x, y), (sides.x, sides.y), strict=True)
    return (*(as_cotangent(d, p, wanted=want) for d, p, want in sided), of_line, None)


def _columns_again(tile: int, g: Array, others: tuple) -> Array:
    x, y, line, marks = others
    return sigmoid_column_gradients(x, y, line=line, marks=marks, weights=g, tile=tile)


sigmoid_rows.defvjp(_forward, _backward, symbolic_zeros=True)
