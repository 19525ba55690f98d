r"""The tiled core of the softmax losses: statistics of blocks of logits, and their gradients.

With $L_{ij} = s\,x_i y_j$ for x `[n, d]` and y `[m, d]`, never stored whole:

- `softmax_statistics` gives $\max_j L_{ij}$ and $\sum_j e^{L_{ij} - \max}$ of every row, the same
  of every column over these rows, and the logit of each row with its own column. Parts over devices
  or over chunks are put together by `merged`, and closed by `log_sum`.
- `softmax_gradients` takes the final log-sum-exps $r_i$ and $c_j$ (over everything) with weights
  $g_i$ and $h_j$, forms $W_{ij} = g_i e^{L_{ij} - r_i} + h_j e^{L_{ij} - c_j}$ block by block, and
  gives $s W y$, $s W^\top x$ (the part of these rows) and $\sum_{ij} W_{ij} x_i y_j$ (likewise).
- `softmax_row_gradients` does both in one pass where only rows are normalised.

These are plain functions of local arrays, without collectives and without derivatives of their own:
`tiled_logsumexp` makes a `custom_vjp` of them on one device. The maximum is always that of the row
or the column at hand: one shift for all, such as `s`, overflows or underflows at s = 100.

Contract: x and y are finite (rows that do not count are set to 0 before) and of one dtype, that of
the operands of every product; statistics, sums and gradients are in at least float32. An excluded
pair has weight exactly 0. A row or a column without pairs has maximum -inf, sum 0 and `log_sum` 0.
Where that dtype is narrow and `Marks.own` is given, W is 0 at the own pairs, which keeps them out
of its rounding: `own_weights` is their whole weight, and goes into `Weights.own`.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from datarax.functional.checks import accumulation_dtype
from datarax.functional.contrastive.marks import Marks, of_rows, picked, without_own
from datarax.functional.contrastive.tiles import (
    is_narrow,
    logits_of,
    scan_rows,
    weighted_columns,
    weighted_rows,
)


class Statistics(NamedTuple):
    """Maxima, sums of exponentials below them, and the logits that `Marks.own` names."""

    row_max: Array
    row_sum: Array
    column_max: Any = None
    column_sum: Any = None
    own: Any = None


class Weights(NamedTuple):
    """r_i and g_i, c_j and h_j (`None` where columns are not normalised), and of the own pairs.

    The maximum with g over the sum below it serves as well as r with g, and rounds less.

    own: [n], a weight that is added to W at the own pair, outside the rounded product.
    partners: [n, d], the rows of y that `Marks.own` names. `Gradients.y` lacks the mirrored part,
      s own_i x_i at the partner of i: put it into `start`, or add it.
    """

    row_lse: Array
    rows: Array
    column_lse: Any = None
    columns: Any = None
    own: Any = None
    partners: Any = None


class Gradients(NamedTuple):
    """Of x [n, d], of y [m, d], and of the scale; `None` for a side that is not wanted."""

    x: Array | None
    y: Array | None
    scale: Array


def softmax_statistics(
    x: Array, y: Array, *, scale: Array, marks: Marks, tile: int, columns: bool = True
) -> Statistics:
    """Of the rows, and with `columns` of the columns over these rows; one product."""
    wide, m = accumulation_dtype(x), y.shape[0]
    # `_like` x: under `shard_map` the carry of a loop must vary over devices as its body does.
    peak, total = (jnp.full_like(x, value, shape=(m,), dtype=wide) for value in (-jnp.inf, 0))
    start = (peak, total) if columns else None

    def body(carry: Any, block: Any) -> tuple[Any, Any]:
        rows, local = block
        whole = _scaled_logits(rows, y, scale, alike=x is y)
        logits = _excluded(whole, local, marks)
        row_max, exponentials = _row_exponentials(logits)
        if columns:
            peak = jnp.maximum(carry[0], jnp.max(logits, axis=0))
            total = jnp.sum(jnp.exp(logits - finite(peak)[None, :]), axis=0)
            carry = peak, carry[1] * shrinkage(carry[0], peak) + total
        return carry, (row_max, jnp.sum(exponentials, axis=1), picked(whole, local.own))

    carry, (row_max, row_sum, own) = scan_rows(body, start, (x, of_rows(marks)), tile=tile)
    peak, total = carry if columns else (None, None)
    return Statistics(row_max, row_sum, peak, total, own)


def softmax_gradients(
    x: Array,
    y: Array,
    *,
    scale: Array,
    marks: Marks,
    weights: Weights,
    tile: int,
    sides: tuple[bool, bool] = (True, True),
    start: Array | None = None,
) -> Gradients:
    """Of the log-sums weighted by `weights`: one product, and one for each of the `sides`.

    `start` [m, d] is what the gradient of y is added to: `None` for zeros, or other rows' part.
    """
    wide = accumulation_dtype(x)
    if start is None and sides[1]:
        start = jnp.zeros_like(x, shape=y.shape, dtype=wide)
    local_weights = weights._replace(column_lse=None, columns=None)
    # The products are the logits over it: it is never 0, and e^(2^-60) is 1.
    unit = scale + jnp.where(scale == 0, 2.0**-60, 0)

    def body(carry: Any, block: Any) -> tuple[Any, Any]:
        rows, local, known = block
        whole = _scaled_logits(rows, y, unit, alike=x is y)
        logits = _excluded(whole, local, marks)
        w = known.rows[:, None] * jnp.exp(logits - known.row_lse[:, None])
        if weights.column_lse is not None:
            w += weights.columns[None, :] * jnp.exp(logits - weights.column_lse[None, :])
        w = without_own(w, local.own) if is_narrow(x) else w
        of_x, of_scale = _row_side(w, rows, y, products=whole / unit, known=known, wanted=sides[0])
        carry = carry + scale * weighted_columns(w, rows) if sides[1] else None
        return carry, (None if of_x is None else scale * of_x, of_scale)

    rowwise = (x, of_rows(marks), local_weights)
    of_y, (of_x, of_scale) = scan_rows(body, start if sides[1] else None, rowwise, tile=tile)
    return Gradients(of_x, of_y, jnp.sum(of_scale))


def softmax_row_gradients(
    x: Array,
    y: Array,
    *,
    scale: Array,
    marks: Marks,
    tile: int,
    sides: tuple[bool, bool] = (True, True),
) -> tuple[Statistics, Array | None, Array | None]:
    r"""Statistics of the rows, and with $P = e^{L - r}$ the sides $P y$ and $P^\top x$.

    No `scale` is multiplied in; `own` is left out as in `softmax_gradients`. One product, and one
    for each of the `sides`: what a loss over rows alone needs, for any weights of the rows in
    $P y$ and for equal ones in $P^\top x$ (rows that do not count are 0 in x).
    """
    wide = accumulation_dtype(x)

    def body(carry: Any, block: Any) -> tuple[Any, Any]:
        rows, local = block
        whole = _scaled_logits(rows, y, scale, alike=x is y)
        logits = _excluded(whole, local, marks)
        row_max, exponentials = _row_exponentials(logits)
        row_sum = jnp.sum(exponentials, axis=1)
        inverse = 1 / jnp.where(row_sum == 0, 1, row_sum)
        p = exponentials * inverse[:, None]
        p = without_own(p, local.own) if is_narrow(x) else p
        of_x = weighted_rows(p, y) if sides[0] else None
        carry = carry + weighted_columns(p, rows) if sides[1] else None
        return carry, (row_max, row_sum, picked(whole, local.own), of_x)

    start = jnp.zeros_like(x, shape=y.shape, dtype=wide) if sides[1] else None
    of_y, (*sums, own, of_x) = scan_rows(body, start, (x, of_rows(marks)), tile=tile)
    return Statistics(sums[0], sums[1], own=own), of_x, of_y


def own_weights(logits: Array, added: Array, weights: Weights, *, marks: Marks) -> Array:
    """The whole weight of the own pairs: `added`, and what W would hold there."""
    own = marks.own
    here = jnp.ones(logits.shape, bool) if marks.rows is None else marks.rows
    if marks.columns is not None:
        here &= marks.columns[own]
    if marks.row_labels is not None:
        here &= marks.row_labels != marks.column_labels[own]
    logits = jnp.where(here, logits, -jnp.inf)
    total = added + weights.rows * jnp.exp(logits - weights.row_lse)
    if weights.column_lse is None:
        return total
    return total + weights.columns[own] * jnp.exp(logits - weights.column_lse[own])


def finite(peak: Array) -> Array:
    """A maximum that can be subtracted: 0 for that of nothing."""
    return jnp.where(jnp.isneginf(peak), 0, peak)


def shrinkage(old: Array, new: Array) -> Array:
    """What a sum below `old` is multiplied by to be one below `new`, which is at least `old`."""
    return jnp.where(jnp.isneginf(old), 0, jnp.exp(finite(old) - finite(new)))


def merged(peak: Array, total: Array, other_peak: Array, other_total: Array) -> tuple[Array, Array]:
    """Maximum and sum of two disjoint parts."""
    top = jnp.maximum(peak, other_peak)
    return top, total * shrinkage(peak, top) + other_total * shrinkage(other_peak, top)


def log_sum(peak: Array, total: Array) -> Array:
    """The log-sum-exp; 0 (not -inf) of nothing, as in `masking.masked_logsumexp`."""
    empty = total == 0
    return jnp.where(empty, 0, finite(peak) + jnp.log(jnp.where(empty, 1, total)))


def _row_exponentials(logits: Array) -> tuple[Array, Array]:
    row_max = jnp.max(logits, axis=1)
    return row_max, jnp.exp(logits - finite(row_max)[:, None])


def _excluded(logits: Array, local: Marks, marks: Marks) -> Array:
    """-inf at the pairs that do not count; `local` holds the marks of the block's rows."""
    if marks.rows is not None:
        logits = jnp.where(local.rows[:, None], logits, -jnp.inf)
    if marks.columns is not None:
        logits = jnp.where(marks.columns[None, :], logits, -jnp.inf)
    if marks.row_labels is not None:
        same = local.row_labels[:, None] == marks.column_labels[None, :]
        logits = jnp.where(same, -jnp.inf, logits)
    return logits


def _scaled_logits(rows: Array, y: Array, scale: Array, *, alike: bool) -> Array:
    """The scale goes into the rows: times the product, XLA fuses it with the shift into one
    rounding, so that a row's largest logit is no longer exactly its maximum. A narrow operand
    would be rounded by it, and a matrix of x with itself would lose its symmetry.
    """
    if alike or is_narrow(rows):
        return logits_of(rows, y) * scale
    return logits_of(rows * scale, y)


def _row_side(
    w: Array, rows: Array, y: Array, *, products: Array, known: Weights, wanted: bool
) -> tuple[Array | None, Array]:
    """W y with the own pairs, and the rows' sums of W x_i y_j: from it, since L is linear in x."""
    wide = products.dtype
    added = 0
    if known.own is not None:
        added = known.own[:, None] * known.partners.astype(wide)
    if wanted:
        of_x = weighted_rows(w, y) + added
        return of_x, jnp.sum(of_x * rows.astype(wide), axis=1)
    own = jnp.sum(added * rows.astype(wide), axis=1)
    return None, jnp.sum(w * products, axis=1) + own
