r"""The tiled core of the sigmoid loss: sums over the columns of blocks of logits, and gradients.

With $L_{ij} = s\,x_i y_j + c$ for x `[n, d]` and y `[m, d]`, never stored whole, z = 1 for a
positive pair (one whose labels are equal, see `Marks`) and -1 for any other, and the slopes
$G_{ij} = -z_{ij}\,\sigma(-z_{ij} L_{ij})$:

- `sigmoid_sums` gives $\sum_j -\log \sigma(z_{ij} L_{ij})$ of every row: 1 product.
- `sigmoid_row_gradients` gives with it $\sum_j G_{ij}$, $G y$ and $G^\top x$: 3 products. No scale
  is multiplied in. Every row's loss is whole with the block, so nothing has to be formed again for
  any weights of the rows in $G y$, and for equal ones in $G^\top x$.
- `sigmoid_column_gradients` is the last for given weights: 2 products.

Contract: as in `tiled_softmax`. Sums over chunks of columns, and $G^\top x$ over devices, add up.
A row that does not count is 0 in x, and its sum means nothing. Where `Marks.own` is given, the
products and the sum of slopes leave the own pairs out, beside which the others would be rounded:
add `own_slopes`, times their rows.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from datarax.functional.checks import accumulation_dtype
from datarax.functional.contrastive.marks import (
    Marks,
    counted_from,
    of_columns,
    of_rows,
    picked,
    without_own,
)
from datarax.functional.contrastive.tiles import (
    columns_of,
    logits_of,
    no_columns,
    scan_columns,
    scan_rows,
    turned,
    weighted_rows,
)


class Line(NamedTuple):
    """The logit of a similarity: `scale` times it, plus `bias`."""

    scale: Array
    bias: Array


class Sums(NamedTuple):
    """Of the rows [n]: the losses, the slopes but those of own pairs, and the own logits."""

    losses: Array
    slopes: Any
    own: Any


def sigmoid_sums(x: Array, y: Array, *, line: Line, marks: Marks, tile: int) -> Array:
    """The sums over the columns [n]; one product."""

    def body(carry: Any, block: Any) -> tuple[Any, Any]:
        rows, local = block
        signed, _ = _signed_logits(logits_of(rows, y), line, local, marks)
        return carry, jnp.sum(_softplus(signed, _decay(signed)), axis=1)

    return scan_rows(body, None, (x, of_rows(marks)), tile=tile)[1]


def sigmoid_row_gradients(
    x: Array,
    y: Array,
    *,
    line: Line,
    marks: Marks,
    tile: int,
    sides: tuple[bool, bool] = (True, True),
) -> tuple[Sums, Array | None, Array | None]:
    """The sums, G y and G^T x; one product, and one for each of the `sides`."""
    wide = accumulation_dtype(x)
    given = (y, of_columns(marks), jnp.arange(len(y), dtype=jnp.int32))

    def body(carry: Any, block: Any) -> tuple[Any, Any]:
        rows, local = block
        across = turned(rows)

        def chunk(found: Any, part: Any, given: Any) -> tuple[Any, Any]:
            losses, total, before, of_x = found
            y_part, there, index = given
            own = counted_from(local.own, index)
            products = logits_of(rows, y_part)
            signed, positive = _signed_logits(products, line, local, there)
            decay = _decay(signed)
            losses += jnp.sum(_softplus(signed, decay), axis=1)
            slopes = without_own(_slopes(signed, decay, positive), own)
            total += jnp.sum(slopes, axis=1)
            if sides[0]:
                of_x += weighted_rows(slopes, y_part)
            part = None if part is None else part + columns_of(across, slopes)
            return (losses, total, picked(products, own, before), of_x), part

        zero = jnp.zeros_like(rows, shape=len(rows), dtype=wide)
        of_x = jnp.zeros_like(rows, dtype=wide) if sides[0] else None
        found = (zero, zero, None if local.own is None else zero, of_x)
        found, carry = scan_columns(chunk, found, carry, given, rows=len(rows))
        losses, total, own, of_x = found
        return carry, (losses, total, None if own is None else own * line.scale + line.bias, of_x)

    none = no_columns(x, y) if sides[1] else None
    columns, (*sums, of_x) = scan_rows(body, none, (x, of_rows(marks)), tile=tile)
    return Sums(*sums), of_x, columns.T if sides[1] else None


def sigmoid_column_gradients(
    x: Array, y: Array, *, line: Line, marks: Marks, weights: Array, tile: int
) -> Array:
    """G^T x with the rows of G weighted by `weights` [n]; two products, no scale in it."""

    def body(carry: Any, block: Any) -> tuple[Any, Any]:
        rows, local, weight = block
        signed, positive = _signed_logits(logits_of(rows, y), line, local, marks)
        slopes = _slopes(signed, _decay(signed), positive) * weight[:, None]
        slopes = without_own(slopes, local.own)
        return carry + columns_of(turned(rows), slopes), None

    rowwise = (x, of_rows(marks), weights)
    return scan_rows(body, no_columns(x, y), rowwise, tile=tile)[0].T


def own_slopes(logits: Array, *, marks: Marks) -> Array:
    """G at the own pairs, from their logits [n]; 0 where the column does not count."""
    positive = marks.row_labels == marks.column_labels[marks.own]
    signed = jnp.where(positive, -logits, logits)
    if marks.columns is not None:
        signed = jnp.where(marks.columns[marks.own], signed, -jnp.inf)
    return _slopes(signed, _decay(signed), positive)


def _signed_logits(products: Array, line: Line, local: Marks, marks: Marks) -> tuple[Array, Array]:
    """-z L, -inf in columns that do not count, and which pairs are positive."""
    logits = products * line.scale + line.bias
    positive = local.row_labels[:, None] == marks.column_labels[None, :]
    signed = jnp.where(positive, -logits, logits)
    if marks.columns is not None:
        signed = jnp.where(marks.columns[None, :], signed, -jnp.inf)
    return signed, positive


def _decay(x: Array) -> Array:
    """exp(-|x|), which does not overflow."""
    return jnp.exp(-jnp.abs(x))


def _softplus(x: Array, decay: Array) -> Array:
    return jnp.maximum(x, 0) + jnp.log1p(decay)


def _slopes(signed: Array, decay: Array, positive: Array) -> Array:
    """-z sigma(-z L): both tails of the logistic function keep their relative accuracy."""
    logistic = jnp.where(signed >= 0, 1, decay) / (1 + decay)
    return jnp.where(positive, -logistic, logistic)
