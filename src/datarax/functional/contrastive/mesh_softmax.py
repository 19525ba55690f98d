"""InfoNCE of rows that lie on several devices, each against the columns of all."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from datarax.functional.checks import accumulation_dtype
from datarax.functional.contrastive.mesh_devices import Exchange, MeshForm, Spread
from datarax.functional.contrastive.mesh_logsumexp import Labels, MeshSums, mesh_logsumexp
from datarax.functional.contrastive.mesh_positives import block_positives, groups_of
from datarax.functional.contrastive.tiled_logsumexp import row_logsumexp
from datarax.functional.contrastive.tiled_softmax import Marks
from datarax.functional.contrastive.tiles import Tiling


class ExtraColumns(NamedTuple):
    """Columns that every device holds: vectors [k, d], which are there, and their ids."""

    vectors: Array
    there: Array
    ids: Array | None


class MeshRows(NamedTuple):
    """The local rows of a loss [b, d], which are there, and their ids."""

    a: Array
    b: Array
    has_a: Array
    has_b: Array
    ids: Array | None


class _Side(NamedTuple):
    """Of the rows of one direction over columns: log-sum-exps, sums of logits, and counts."""

    lse: Array
    count: Array
    matched: Array
    matches: Array
    total: Array
    columns: Array


class MeshOptions(NamedTuple):
    """What is not an array: see `info_nce`."""

    directions: tuple[str, ...]
    label_smoothing: float
    decoupled: bool
    exchange: Exchange


def mesh_info_nce(
    spread: Spread,
    rows: MeshRows,
    *,
    scale: Array,
    extra: dict[str, ExtraColumns | None],
    options: MeshOptions,
) -> Array:
    """The losses of the rows, the mean over the directions.

    Args:
      spread: the devices.
      rows: all rows, or those of a device under `shard_map`.
      scale: the logit scale [].
      extra: for each direction more columns, the same on every device.
      options: what is not an array.
    """

    def local(count: int, rows: MeshRows, shared: tuple) -> Array:
        form = options.exchange.form(spread.axis, count, rows.b)
        return _local_losses(form, rows, *shared, options=options)

    return spread.run(local, rows, (scale, extra))


def _local_losses(
    form: MeshForm,
    rows: MeshRows,
    scale: Array,
    extra: dict[str, ExtraColumns | None],
    *,
    options: MeshOptions,
) -> Array:
    rows, scale, extra = form.varying((rows, scale, extra))
    rows = rows._replace(
        a=jnp.where(rows.has_a[:, None], rows.a, 0), b=jnp.where(rows.has_b[:, None], rows.b, 0)
    )
    marks = Marks(rows.has_a, rows.has_b)
    if options.decoupled:
        names = form.places(rows.a.shape[0]) if rows.ids is None else rows.ids
        marks = marks._replace(row_labels=names, column_labels=names)
    sums = mesh_logsumexp(form, rows.a, rows.b, scale, Labels(marks, rows.ids))
    losses = []
    for direction in options.directions:
        side = _in_batch(form, rows, sums, scale=scale, direction=direction, options=options)
        more = extra[direction]
        if more is not None:
            pair = (rows.a, rows.b) if direction == "a_to_b" else (rows.b, rows.a)
            shared = {"scale": scale, "ids": rows.ids, "decoupled": options.decoupled}
            side = _joined(side, _extra_side(form, pair, more, **shared))
        losses.append(_losses(side, rows=rows.has_a & rows.has_b, options=options))
    return sum(losses[1:], losses[0]) / len(losses)


def _in_batch(
    form: MeshForm,
    rows: MeshRows,
    sums: MeshSums,
    *,
    scale: Array,
    direction: str,
    options: MeshOptions,
) -> _Side:
    """Of the local rows of a direction over the rows of all devices."""
    x, y, there, lse = rows.a, rows.b, rows.has_b, sums.rows
    matched, matches = sums.positives.row_sums, sums.positives.row_counts
    if direction == "b_to_a":
        x, y, there, lse = rows.b, rows.a, rows.has_a, sums.columns
        matched, matches = sums.positives.column_sums, sums.positives.column_counts
    wide = accumulation_dtype(x)
    here = lax.psum(jnp.sum(there.astype(wide)), form.axis)
    columns = jnp.broadcast_to(here, lse.shape)
    total = jnp.zeros_like(lse)
    if options.label_smoothing > 0:
        total = _total(x, lax.psum(jnp.sum(y.astype(wide), axis=0), form.axis), scale=scale)
    count = columns - matches if options.decoupled else columns
    return _Side(lse, count, matched, matches, total, columns)


def _total(x: Array, column: Array, *, scale: Array) -> Array:
    """The sums of the logits of rows with columns whose vectors sum to `column`."""
    return scale * jnp.sum(x.astype(column.dtype) * column[None, :], axis=1)


def _losses(side: _Side, *, rows: Array, options: MeshOptions) -> Array:
    matched = side.matched / jnp.where(side.matches > 0, side.matches, 1)
    losses = side.lse - matched
    if options.label_smoothing > 0:
        everything = side.total / jnp.where(side.columns > 0, side.columns, 1)
        losses = losses + options.label_smoothing * (matched - everything)
    if options.decoupled:
        rows = rows & (side.count > 0)
    return jnp.where(rows, losses, 0)


def _extra_side(
    form: MeshForm,
    sides: tuple[Array, Array],
    extra: ExtraColumns,
    *,
    scale: Array,
    ids: Array | None,
    decoupled: bool,
) -> _Side:
    """Of the local rows over columns that every device holds, by the rule of one device."""
    x, own = sides
    wide = accumulation_dtype(x)
    n = x.shape[0]
    vectors = jnp.where(extra.there[:, None], extra.vectors, 0)
    # `row_logsumexp` wants the rows' own columns first: here they do not count.
    columns = jnp.concatenate([jnp.zeros_like(extra.there, shape=(n,)), extra.there])
    marks = Marks(columns=columns)
    matched = matches = jnp.zeros_like(x, shape=(n,), dtype=wide)
    if ids is not None and extra.ids is not None:
        ids, others = _widened(ids, extra.ids)
        groups = groups_of(ids)
        pair = x.astype(wide), vectors.astype(wide)
        there = jnp.ones_like(ids, dtype=bool), extra.there
        found = block_positives(groups, pair, there=there, ids=others)
        matched, matches = scale * found.row_sums, lax.stop_gradient(found.row_counts)
        if decoupled:
            marks = marks._replace(row_labels=ids, column_labels=jnp.concatenate([ids, others]))
    y = jnp.concatenate([own, vectors.astype(own.dtype)])
    tiling = Tiling(form.tile or form.block_rows(x, y), form.operands)
    sums = row_logsumexp(tiling, x, y, scale, marks)
    here = jnp.broadcast_to(jnp.sum(extra.there.astype(wide)), (n,))
    total = _total(x, jnp.sum(vectors.astype(wide), axis=0), scale=scale)
    count = here - matches if decoupled else here
    return _Side(sums.rows, count, matched, matches, total, here)


def _joined(one: _Side, other: _Side) -> _Side:
    """Over the columns of both; a log-sum-exp of nothing is 0, and does not count."""
    lse = jnp.where(other.count > 0, jnp.logaddexp(one.lse, other.lse), one.lse)
    lse = jnp.where(one.count > 0, lse, other.lse)
    return jax.tree.map(jnp.add, one._replace(lse=lse), other._replace(lse=jnp.zeros_like(lse)))


def _widened(ids: Array, others: Array) -> tuple[Array, Array]:
    """Both in one dtype: NumPy's, since strict promotion has none; canonical, without int64."""
    wide = jax.dtypes.canonicalize_dtype(np.promote_types(ids.dtype, others.dtype))
    return ids.astype(wide), others.astype(wide)
