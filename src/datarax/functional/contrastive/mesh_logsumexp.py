r"""Log-sum-exps of the rows and columns of $L = s\,x y^\top$ whose rows lie on several devices.

Called by every device with its own rows, under `shard_map`: x and y `[b, d]` are the local rows,
N = b k are all. The products are those of `tiled_softmax`, each device 1/k of them. With
U = (k - 1)/k N d elements, a device receives

- by `"gather"` 2 U: all of y in the forward pass, kept for the backward pass, whose gradient of y
  goes home by a reduce-scatter; O(N d) memory;
- by `"ring"` 3 U: y goes round once in each pass, in the second with its gradient; O(b d) memory,
  whatever the number of devices.

Vectors of N numbers travel besides. Row `i` of y is the own column of row `i` of x.

Reference: Liu et al., 2023, arXiv:2310.01889 (blocks that go round a ring of devices).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from datarax.functional.checks import accumulation_dtype
from datarax.functional.contrastive.marks import Marks
from datarax.functional.contrastive.mesh_devices import MeshForm
from datarax.functional.contrastive.mesh_positives import (
    Positives,
    block_positives,
    groups_of,
    positive_gradients,
)
from datarax.functional.contrastive.tiled_softmax import (
    Statistics,
    Weights,
    finite,
    log_sum,
    merged,
    own_weights,
    shrinkage,
    softmax_gradients,
    softmax_statistics,
)
from datarax.functional.contrastive.tiles import narrowed


class Labels(NamedTuple):
    """What is known of the local rows, beside their embeddings.

    marks: of local rows and columns, without `own`; both masks are given.
    ids: integers [b], which pairs are positives; `None` for row `i` with column `i` alone.
    """

    marks: Marks
    ids: Array | None = None


class MeshSums(NamedTuple):
    """Log-sum-exps of the local rows and columns [b], 0 for those without pairs, and positives.

    positives: its sums are those of the logits; the counts have no gradient.
    """

    rows: Array
    columns: Array
    positives: Positives


class _Guest(NamedTuple):
    """Columns that go round: their rows of y, marks and ids, and what a backward pass needs."""

    y: Array
    there: Array
    labels: Array | None
    ids: Array | None
    peak: Array | None = None
    weights: Array | None = None
    positive_weights: Array | None = None


_Block = Callable[..., tuple]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def mesh_logsumexp(form: MeshForm, x: Array, y: Array, scale: Array, labels: Labels) -> MeshSums:
    """Of local rows over all columns, and of local columns over all rows.

    Args:
      form: the devices, and how they exchange rows.
      x, y: [b, d], 0 where a row is absent.
      scale: []; made varying before, where it is replicated, so that its gradients are summed.
      labels: masks and ids of the local rows.
    """
    return _forward(form, x, y, scale, labels)[0]


def _forward(
    form: MeshForm, x: Array, y: Array, scale: Array, labels: Labels
) -> tuple[MeshSums, Any]:
    xs, ys = (narrowed(v, form.operands) for v in (x, y))
    guest = _Guest(ys, labels.marks.columns, labels.marks.column_labels, labels.ids)
    exchange = _gathered_sums if form.collective == "gather" else _ring_sums
    stats, positives, kept = exchange(form, xs, guest, scale=scale, labels=labels)
    rows = log_sum(stats.row_max, stats.row_sum)
    sums = MeshSums(rows, log_sum(stats.column_max, stats.column_sum), positives)
    return sums, ((x, y, scale, labels), stats, kept)


def _backward(form: MeshForm, residuals: Any, cotangents: MeshSums) -> tuple:
    (x, y, scale, labels), stats, kept = residuals
    xs, ys = (narrowed(v, form.operands) for v in (x, y))
    q, _, h, _ = cotangents.positives
    rows = below(stats.row_max, stats.row_sum, cotangents.rows)
    columns = below(stats.column_max, stats.column_sum, cotangents.columns)
    guest = _Guest(
        ys,
        labels.marks.columns,
        labels.marks.column_labels,
        labels.ids,
        peak=columns[0],
        weights=columns[1],
        positive_weights=h,
    )
    weights = Weights(*rows, *columns, partners=ys)
    marks = labels.marks._replace(own=lax.iota(jnp.int32, x.shape[0]))
    weights = weights._replace(own=own_weights(stats.own, q + h, weights, marks=marks))
    exchange = _gathered_gradients if form.collective == "gather" else _ring_gradients
    block = _block_gradients(form, xs, scale=scale, labels=labels, weights=weights, q=q)
    of_x, of_y, of_scale = exchange(form, block, guest, kept=kept)
    of_y = of_y + (scale * weights.own)[:, None] * xs.astype(of_y.dtype)
    return of_x.astype(x.dtype), of_y.astype(y.dtype), of_scale.astype(scale.dtype), None


mesh_logsumexp.defvjp(_forward, _backward)


def below(peak: Array, total: Array, weights: Array) -> tuple[Array, Array]:
    """A maximum and weights over the sum below it, which round less than a log-sum-exp."""
    return finite(peak), weights / jnp.where(total == 0, 1, total)


def _gathered_sums(
    form: MeshForm, x: Array, guest: _Guest, *, scale: Array, labels: Labels
) -> tuple[Statistics, Positives, Any]:
    everyone = jax.tree.map(form.gathered, guest)
    places = form.places(x.shape[0])
    found = softmax_statistics(
        x,
        everyone.y,
        scale=scale,
        marks=_marks(labels, everyone, own=places),
        tile=form.block_rows(x, everyone.y),
    )
    # It cancels, and has no derivative.
    peak = lax.pmax(lax.stop_gradient(found.column_max), form.axis)
    total = lax.psum(found.column_sum * shrinkage(found.column_max, peak), form.axis)
    stats = found._replace(column_max=peak[places], column_sum=total[places])
    if labels.ids is None:
        return stats, _own_positives(found.own, labels), (everyone, peak)
    part = _block_positives(x, everyone, labels, own=places)
    home = jax.tree.map(form.scattered, (part.column_sums, part.column_counts))
    positives = part._replace(column_sums=home[0], column_counts=home[1])
    return stats, _with_own(positives, found.own, scale=scale), (everyone, peak)


def _gathered_gradients(
    form: MeshForm, block: _Block, guest: _Guest, *, kept: Any
) -> tuple[Array, Array, Array]:
    everyone, peak = kept
    everyone = everyone._replace(
        peak=finite(peak),
        weights=form.gathered(guest.weights),
        positive_weights=form.gathered(guest.positive_weights),
    )
    of_x, of_y, of_scale = block(everyone, own=form.places(guest.y.shape[0]), start=None)
    return of_x, form.scattered(of_y), of_scale


def _ring_sums(
    form: MeshForm, x: Array, guest: _Guest, *, scale: Array, labels: Labels
) -> tuple[Statistics, Positives, Any]:
    statistics = partial(softmax_statistics, x, scale=scale, tile=form.block_rows(x, guest.y))
    index = lax.iota(jnp.int32, x.shape[0])
    own = statistics(guest.y, marks=_marks(labels, guest, own=index))
    positives = None if labels.ids is None else _block_positives(x, guest, labels, own=index)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        rows, columns, positives, guest = carry
        guest = form.hop(guest)
        found = statistics(guest.y, marks=_marks(labels, guest))
        rows = merged(found.row_max, found.row_sum, *rows)
        columns = form.hop(merged(found.column_max, found.column_sum, *columns))
        if positives is not None:
            part = jax.tree.map(jnp.add, positives, _block_positives(x, guest, labels))
            home = form.hop((part.column_sums, part.column_counts))
            positives = Positives(part.row_sums, part.row_counts, *home)
        return (rows, columns, positives, guest), None

    # What the columns gather on their way starts empty: their own rows are added at home.
    empty = (jnp.full_like(own.column_max, -jnp.inf), jnp.zeros_like(own.column_sum))
    start = None if positives is None else jax.tree.map(jnp.zeros_like, positives)
    carry = ((own.row_max, own.row_sum), empty, start, guest)
    (rows, (peak, total), others, _), _ = lax.scan(step, carry, None, length=form.count - 1)
    columns = merged(peak, total, own.column_max, own.column_sum)
    row_max, row_sum = rows
    stats = Statistics(row_max, row_sum, columns[0], columns[1], own.own)
    if positives is None:
        return stats, _own_positives(own.own, labels), None
    found = jax.tree.map(jnp.add, positives, others)
    return stats, _with_own(found, own.own, scale=scale), None


def _ring_gradients(
    form: MeshForm, block: _Block, guest: _Guest, *, kept: Any
) -> tuple[Array, Array, Array]:
    own = block(guest, own=lax.iota(jnp.int32, guest.y.shape[0]), start=None)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        of_x, of_y, of_scale, guest = carry
        guest = form.hop(guest)
        found = block(guest, own=None, start=of_y)
        return (of_x + found[0], form.hop(found[1]), of_scale + found[2], guest), None

    carry = (own[0], jnp.zeros_like(own[1]), own[2], guest)
    (of_x, of_y, of_scale, _), _ = lax.scan(step, carry, None, length=form.count - 1)
    return of_x, own[1] + of_y, of_scale


def _block_gradients(
    form: MeshForm, x: Array, *, scale: Array, labels: Labels, weights: Weights, q: Array
) -> _Block:
    """A function of a guest: the gradients of x, of its y (added to `start`) and of the scale.

    `own` are the places of the rows' own columns in it; `None` where they are not.
    """
    wide = accumulation_dtype(x)
    foreign = weights._replace(own=None, partners=None)

    def block(guest: _Guest, *, own: Array | None, start: Array | None) -> tuple:
        mine = foreign if own is None else weights
        found = softmax_gradients(
            x,
            guest.y,
            scale=scale,
            marks=_marks(labels, guest, own=own),
            weights=mine._replace(column_lse=guest.peak, columns=guest.weights),
            tile=form.block_rows(x, guest.y),
            start=start,
        )
        if labels.ids is None:
            return tuple(found)
        sides = x.astype(wide), guest.y.astype(wide)
        groups, pairs = groups_of(labels.ids), (q, guest.positive_weights)
        of_x, of_y = positive_gradients(groups, sides, weights=pairs, ids=guest.ids, own=own)
        of_scale = found.scale + jnp.sum(of_x * sides[0])
        return found.x + scale * of_x, found.y + scale * of_y, of_scale

    return block


def _block_positives(
    x: Array, guest: _Guest, labels: Labels, *, own: Array | None = None
) -> Positives:
    wide = accumulation_dtype(x)
    there = labels.marks.rows, guest.there
    sides = x.astype(wide), guest.y.astype(wide)
    return block_positives(groups_of(labels.ids), sides, there=there, ids=guest.ids, own=own)


def _with_own(others: Positives, logits: Array, *, scale: Array) -> Positives:
    """The sums of the logits of all positives, from those of the products of the others."""
    rows, columns = (scale * x + logits for x in (others.row_sums, others.column_sums))
    return others._replace(row_sums=rows, column_sums=columns)


def _own_positives(logits: Array, labels: Labels) -> Positives:
    """Row `i` with column `i` alone."""
    rows, columns = (
        mask.astype(logits.dtype) for mask in (labels.marks.rows, labels.marks.columns)
    )
    return Positives(logits, columns, logits, rows)


def _marks(labels: Labels, guest: _Guest, own: Array | None = None) -> Marks:
    marks = labels.marks._replace(columns=guest.there, column_labels=guest.labels)
    return marks._replace(own=own)
