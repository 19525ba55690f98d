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
Where `Marks.own` is given, W is 0 at the own pairs, which keeps them out of the products and their
rounding: of pairs that match, the weight is a small difference from 1. `own_weights` is their whole
weight, and goes into `Weights.own`.
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
    is_narrow,
    logits_of,
    no_columns,
    scan_columns,
    scan_rows,
    turned,
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
    start = _nothing(x, m, dtype=wide) if columns else None
    given = (y, of_columns(marks), jnp.arange(m, dtype=jnp.int32))

    def body(carry: Any, block: Any) -> tuple[Any, Any]:
        rows, local = block
        scaled = _scaled(rows, scale, alike=x is y)

        def chunk(found: Any, part: Any, given: Any) -> tuple[Any, Any]:
            y_part, there, index = given
            own = counted_from(local.own, index)
            whole = _logits(scaled, y_part)
            logits = _excluded(whole, local, there)
            peak, total, before = found
            sums = _with_exponentials(peak, total, logits, axis=1)
            if part is not None:
                peak, total = part
                part = _with_exponentials(peak, total, logits, axis=0)
            return (*sums, picked(whole, own, before)), part

        none = None if local.own is None else jnp.zeros_like(rows, shape=len(rows), dtype=wide)
        found = (*_nothing(rows, len(rows), dtype=wide), none)
        found, carry = scan_columns(chunk, found, carry, given, rows=len(rows))
        return carry, found

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
    by_row = weights._replace(column_lse=None, columns=None)
    by_column = (weights.column_lse, weights.columns)
    given = (y, of_columns(marks), jnp.arange(len(y), dtype=jnp.int32), by_column)
    # The products are the logits over it: it is never 0, and e^(2^-60) is 1.
    unit = scale + jnp.where(scale == 0, 2.0**-60, 0)

    def body(carry: Any, block: Any) -> tuple[Any, Any]:
        rows, local, known = block
        across, scaled = turned(rows), _scaled(rows, unit, alike=x is y)

        def chunk(found: Any, part: Any, given: Any) -> tuple[Any, Any]:
            y_part, there, index, (column_lse, columns) = given
            whole = _logits(scaled, y_part)
            logits = _excluded(whole, local, there)
            w = known.rows[:, None] * jnp.exp(logits - known.row_lse[:, None])
            if columns is not None:
                w += columns[None, :] * jnp.exp(logits - column_lse[None, :])
            w = without_own(w, counted_from(local.own, index))
            if sides[0]:
                found += weighted_rows(w, y_part)
            else:
                found += jnp.sum(w * (whole / unit), axis=1)
            return found, None if part is None else part + columns_of(across, w)

        shape = rows.shape if sides[0] else rows.shape[:1]
        found = jnp.zeros_like(rows, shape=shape, dtype=wide)
        found, carry = scan_columns(chunk, found, carry, given, rows=len(rows))
        of_x, of_scale = _row_side(found, rows, known=known, wanted=sides[0])
        return carry, (None if of_x is None else scale * of_x, of_scale)

    none = no_columns(x, y) if sides[1] else None
    columns, (of_x, of_scale) = scan_rows(body, none, (x, of_rows(marks), by_row), tile=tile)
    of_y = scale * columns.T if sides[1] else None
    return Gradients(of_x, of_y if start is None else start + of_y, jnp.sum(of_scale))


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

    def body(carry: Any, block: Any) -> tuple[Any, Any]:
        rows, local = block
        whole = _logits(_scaled(rows, scale, alike=x is y), y)
        logits = _excluded(whole, local, of_columns(marks))
        row_max = jnp.max(logits, axis=1)
        exponentials = jnp.exp(logits - finite(row_max)[:, None])
        row_sum = jnp.sum(exponentials, axis=1)
        inverse = 1 / jnp.where(row_sum == 0, 1, row_sum)
        p = without_own(exponentials * inverse[:, None], local.own)
        of_x = weighted_rows(p, y) if sides[0] else None
        carry = carry + columns_of(turned(rows), p) if sides[1] else None
        return carry, (row_max, row_sum, picked(whole, local.own), of_x)

    none = no_columns(x, y) if sides[1] else None
    columns, (*sums, own, of_x) = scan_rows(body, none, (x, of_rows(marks)), tile=tile)
    return Statistics(sums[0], sums[1], own=own), of_x, columns.T if sides[1] else None


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


def _nothing(x: Array, size: int, *, dtype: Any) -> tuple[Array, Array]:
    """Maxima and sums of nothing."""
    # `_like` x: under `shard_map` the carry of a loop must vary over devices as its body does.
    peak, total = (jnp.full_like(x, value, shape=(size,), dtype=dtype) for value in (-jnp.inf, 0))
    return peak, total


def _with_exponentials(
    peak: Array, total: Array, logits: Array, *, axis: int
) -> tuple[Array, Array]:
    """Maxima and sums, with those of more logits."""
    top = jnp.maximum(peak, jnp.max(logits, axis=axis))
    below = jnp.exp(logits - jnp.expand_dims(finite(top), axis))
    return top, total * shrinkage(peak, top) + jnp.sum(below, axis=axis)


def _excluded(logits: Array, local: Marks, there: Marks) -> Array:
    """-inf at the pairs that do not count, by the marks of the rows and of the columns."""
    if local.rows is not None:
        logits = jnp.where(local.rows[:, None], logits, -jnp.inf)
    if there.columns is not None:
        logits = jnp.where(there.columns[None, :], logits, -jnp.inf)
    if local.row_labels is not None:
        same = local.row_labels[:, None] == there.column_labels[None, :]
        logits = jnp.where(same, -jnp.inf, logits)
    return logits


def _scaled(rows: Array, scale: Array, *, alike: bool) -> tuple[Array, Array | None]:
    """What is multiplied with y, and what the product is multiplied with then.

    The scale goes into the rows: times the product, XLA fuses it with the shift into one rounding,
    so that a row's largest logit is no longer exactly its maximum. A narrow operand would be
    rounded by it, and a matrix of x with itself would lose its symmetry.
    """
    return (rows, scale) if alike or is_narrow(rows) else (rows * scale, None)


def _logits(scaled: tuple[Array, Array | None], y: Array) -> Array:
    rows, scale = scaled
    return logits_of(rows, y) if scale is None else logits_of(rows, y) * scale


def _row_side(
    found: Array, rows: Array, *, known: Weights, wanted: bool
) -> tuple[Array | None, Array]:
    """W y with the own pairs, and the rows' sums of W x_i y_j: from it, since L is linear in x."""
    wide = found.dtype
    added = 0
    if known.own is not None:
        added = known.own[:, None] * known.partners.astype(wide)
    if wanted:
        of_x = found + added
        return of_x, jnp.sum(of_x * rows.astype(wide), axis=1)
    return None, found + jnp.sum(added * rows.astype(wide), axis=1)
