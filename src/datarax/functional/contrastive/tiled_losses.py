r"""The softmax losses put together from log-sum-exps, which alone look at all pairs.

The mean over positives is linear in the columns, $\mathrm{mean}_{p} s\,x_i y_p = s\,x_i
\overline{y}_{P(i)}$, and so is label smoothing: both take the sum of some columns, in O(n d). The
logit of a row's own column comes from the same product as the log-sum-exp, so that a loss that is
nearly 0 keeps its accuracy; only the other columns are added to it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array

from datarax.functional.checks import accumulation_dtype, common_dtype
from datarax.functional.contrastive.marks import Marks, without_absent
from datarax.functional.contrastive.rows import kept_rows
from datarax.functional.contrastive.tiled_logsumexp import (
    both_logsumexp,
    row_logsumexp,
    self_logsumexp,
)
from datarax.functional.contrastive.tiles import Tiling, narrowed


class Columns(NamedTuple):
    """Rows of embeddings [m, d] to contrast with, the own one of row `i` at `i`.

    where: bool [m], which are there; `None` for all, and absent ones are 0.
    labels: integers [m], equal to a row's where they are its positives; `None` for its own alone.
    """

    embeddings: Array
    where: Any = None
    labels: Any = None


class Softmax(NamedTuple):
    """How the logits become a loss; see `info_nce`."""

    scale: Array
    label_smoothing: float = 0.0
    decoupled: bool = False
    tile: int | None = None
    operands: DTypeLike | None = None

    def tiling(self, x: Array, y: Array, *, chunked: bool) -> Tiling:
        """The given tile, or the chosen one."""
        return Tiling.of(x, y, tile=self.tile, operands=self.operands, chunked=chunked)


def both_present(a: Array | None, b: Array | None) -> Array | None:
    """The rows that have both sides; `None` for all."""
    if a is None or b is None:
        return b if a is None else a
    return a & b


def with_more(columns: Columns, more: Columns | None, *, labels: Array | None) -> Columns:
    """The columns, and `more` after them, with the labels [n + k] of all."""
    if more is None:
        return columns
    joined = common_dtype(columns.embeddings, without_absent(more.embeddings, more.where))
    where = None
    if columns.where is not None or more.where is not None:
        parts = zip(joined, (columns.where, more.where), strict=True)
        where = jnp.concatenate([kept_rows(mask, n=len(x)) for x, mask in parts])
    return Columns(jnp.concatenate(joined), where, labels)


def joint_labels(ids: Array, more: Array | None, *, k: int) -> Array:
    """Labels [n + k] in [0, n + k), equal where ids are; -1 for extra columns without ids."""
    if more is None:
        ordered = jnp.sort(ids)
        labels = jnp.searchsorted(ordered, ids)
        return jnp.concatenate([labels, jnp.full(k, -1, labels.dtype)])
    # NumPy's, since jnp's strict promotion has none; canonical, since there may be no int64.
    wide = jax.dtypes.canonicalize_dtype(np.promote_types(ids.dtype, more.dtype))
    joint = jnp.concatenate([ids.astype(wide), more.astype(wide)])
    return jnp.searchsorted(jnp.sort(joint), joint)


def directed(
    a: Columns,
    b: Columns,
    options: Softmax,
    *,
    directions: str,
    labels: Array | None,
    extra: dict[str, Columns | None],
) -> Array:
    """The losses over blocks: one matrix for both directions, unless each has more columns."""
    n = a.embeddings.shape[0]
    # Of the rows alone, in [0, n): a direction without more columns has but n of them.
    own_labels = labels
    if labels is not None and labels.shape[0] > n:
        own_labels = joint_labels(labels[:n], None, k=0)
    a, b = (
        Columns(without_absent(x, side.where), side.where, own_labels)
        for side, x in zip((a, b), common_dtype(a.embeddings, b.embeddings), strict=True)
    )
    if directions == "both" and extra["a_to_b"] is None and extra["b_to_a"] is None:
        return both_ways(a, b, options)
    rows = both_present(a.where, b.where)
    sides = {"a_to_b": (a, b), "b_to_a": (b, a)}
    losses = []
    for direction in sides if directions == "both" else (directions,):
        own, other = sides[direction]
        columns = with_more(other, extra[direction], labels=labels)
        losses.append(one_way(own.embeddings, columns, options, rows=rows))
    return sum(losses[1:], losses[0]) / len(losses)


def one_way(x: Array, columns: Columns, options: Softmax, *, rows: Array | None) -> Array:
    """The losses [n] of the softmax over the columns; 0 for rows that are not there."""
    n = x.shape[0]
    x, y = common_dtype(without_absent(x, rows), columns.embeddings)
    columns = columns._replace(embeddings=y)
    marks = _marks(columns, columns, options, n=n, rows=rows)
    sums = row_logsumexp(options.tiling(x, y, chunked=False), x, y, options.scale, marks)
    return _losses(x, columns, options, lse=sums.rows, own=sums.own, rows=rows)


def both_ways(a: Columns, b: Columns, options: Softmax) -> Array:
    """The mean of the losses of both directions [n], over one matrix of logits."""
    x, y = a.embeddings, b.embeddings
    marks = _marks(a, b, options, n=x.shape[0], rows=a.where)
    sums = both_logsumexp(options.tiling(x, y, chunked=True), x, y, options.scale, marks)
    rows = both_present(a.where, b.where)
    forth = _losses(x, b, options, lse=sums.rows, own=sums.own, rows=rows)
    back = _losses(y, a, options, lse=sums.columns, own=sums.own, rows=rows)
    return (forth + back) / 2


def two_views(z: Array, options: Softmax, *, where: Array | None) -> Array:
    """The losses [2n] of rows among themselves, where `i + n` is the other view of `i`."""
    index = jnp.arange(z.shape[0], dtype=jnp.int32)
    n = z.shape[0] // 2
    own = jnp.roll(index, -n)
    labels = index % n if options.decoupled else index
    marks = Marks(where, where, labels, labels, own)
    sums = self_logsumexp(options.tiling(z, z, chunked=True), z, options.scale, marks)
    losses = sums.rows - sums.own
    if options.decoupled:
        views = 2 * n if where is None else jnp.sum(where)
        losses = jnp.where(views > 2, losses, 0)
    return losses if where is None else jnp.where(where, losses, 0)


def among_labels(z: Array, options: Softmax, *, labels: Array, where: Array | None) -> Array:
    """The losses [n] of rows among themselves against the others of their label; 0 without."""
    index = jnp.arange(z.shape[0], dtype=jnp.int32)
    marks = Marks(where, where, index, index)
    sums = self_logsumexp(options.tiling(z, z, chunked=True), z, options.scale, marks)
    total, count = _label_sums(Columns(z, where, labels), labels, operands=options.operands)
    wide = narrowed(z, options.operands).astype(total.dtype)
    others = jnp.sum(wide * (total - wide), axis=1)
    there = count > 1 if where is None else where & (count > 1)
    return jnp.where(there, sums.rows - options.scale * others / jnp.maximum(count - 1, 1), 0)


def _marks(a: Columns, b: Columns, options: Softmax, *, n: int, rows: Array | None) -> Marks:
    if not options.decoupled:
        return Marks(rows, b.where)
    m = b.embeddings.shape[0]
    if b.labels is not None:
        return Marks(rows, b.where, a.labels[:n], b.labels)
    return Marks(rows, b.where, jnp.arange(n), jnp.arange(m))


def _losses(
    x: Array,
    columns: Columns,
    options: Softmax,
    *,
    lse: Array,
    own: Array,
    rows: Array | None,
) -> Array:
    """Log-sum-exp minus the mean of the positives, and what smoothing adds."""
    matched, positives = own, jnp.ones((), own.dtype)
    if columns.labels is not None:
        labels = columns.labels[: x.shape[0]]
        total, positives = _label_sums(columns, labels, operands=options.operands)
        matched = _mean_with_own(x, columns, options, own=own, total=total, count=positives)
    losses = lse - matched
    if options.label_smoothing > 0:
        total, count = _all_sums(columns, operands=options.operands)
        everything = _mean_with_own(x, columns, options, own=own, total=total, count=count)
        # A difference first, so that it is exactly 0 for one row.
        losses = losses + options.label_smoothing * (matched - everything)
    there = rows
    if options.decoupled:
        contrasted = positives < _all_sums(columns, operands=None)[1]
        there = contrasted if rows is None else rows & contrasted
    return losses if there is None else jnp.where(there, losses, 0)


def _mean_with_own(
    x: Array, columns: Columns, options: Softmax, *, own: Array, total: Array, count: Array
) -> Array:
    """The mean logit of columns that add up to `total`, the own one among them."""
    wide = total.dtype
    x, y = (narrowed(v, options.operands).astype(wide) for v in (x, columns.embeddings))
    others = jnp.sum(x * (total - y[: x.shape[0]]), axis=1)
    return (own + options.scale * others) / jnp.maximum(count, 1)


def _label_sums(
    columns: Columns, labels: Array, *, operands: DTypeLike | None
) -> tuple[Array, Array]:
    """The sum and the number of the columns with the label of each row."""
    wide, m = accumulation_dtype(columns.embeddings), columns.embeddings.shape[0]
    y = narrowed(columns.embeddings, operands).astype(wide)
    here = jnp.ones(m, wide) if columns.where is None else columns.where.astype(wide)
    # Labels of -1 are dropped: they are nobody's positives.
    segments = jnp.where(columns.labels < 0, m, columns.labels)
    total = jax.ops.segment_sum(y, segments, num_segments=m)
    count = jax.ops.segment_sum(here, segments, num_segments=m)
    return total[labels], count[labels]


def _all_sums(columns: Columns, *, operands: DTypeLike | None) -> tuple[Array, Array]:
    """The sum and the number of all columns."""
    wide, m = accumulation_dtype(columns.embeddings), columns.embeddings.shape[0]
    y = narrowed(columns.embeddings, operands).astype(wide)
    count = jnp.full((), m, wide) if columns.where is None else jnp.sum(columns.where, dtype=wide)
    return jnp.sum(y, axis=0)[None, :], count
