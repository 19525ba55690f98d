"""InfoNCE of rows that lie on several devices, each against the columns of all."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from datarax.functional.checks import accumulation_dtype, common_dtype
from datarax.functional.contrastive.mesh_devices import Exchange, MeshForm, Spread
from datarax.functional.contrastive.mesh_logsumexp import Labels, mesh_logsumexp
from datarax.functional.contrastive.mesh_rows import RowForm, RowMarks, mesh_row_losses
from datarax.functional.contrastive.tiled_softmax import Marks


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
    if len(options.directions) > 1 and not any(extra.values()):
        return _both_ways(form, rows, scale, options=options)
    turned = rows._replace(a=rows.b, b=rows.a, has_a=rows.has_b, has_b=rows.has_a)
    sides = {"a_to_b": rows, "b_to_a": turned}
    losses = [
        _one_way(form, sides[direction], scale, extra[direction], options=options)
        for direction in options.directions
    ]
    return sum(losses[1:], losses[0]) / len(losses)


def _one_way(
    form: MeshForm,
    rows: MeshRows,
    scale: Array,
    extra: ExtraColumns | None,
    *,
    options: MeshOptions,
) -> Array:
    """The losses of the rows of a over those of b on all devices, and more columns."""
    there = rows.has_a & rows.has_b
    x = jnp.where(there[:, None], rows.a, 0)
    none = ExtraColumns(rows.b[:0], rows.has_b[:0], None)
    vectors, more, more_ids = none if extra is None else extra
    x, y, vectors = common_dtype(x, rows.b, jnp.where(more[:, None], vectors, 0))
    ids = rows.ids
    if ids is None or more_ids is None:
        more_ids = None
    else:
        ids, more_ids = _widened(ids, more_ids)
    marks = RowMarks(there, rows.has_b, more, ids, more_ids)
    way = RowForm(form, 1 - options.label_smoothing, options.decoupled)
    losses = mesh_row_losses(way, x, (y, vectors), scale, marks)
    if options.label_smoothing > 0:
        wide = accumulation_dtype(x)
        total, count = _all_columns(form, y, rows.has_b)
        total = total + jnp.sum(vectors.astype(wide), axis=0)
        count = count + jnp.sum(more.astype(wide))
        losses = losses - options.label_smoothing * _mean(x, total, count, scale=scale)
    return jnp.where(there, losses, 0)


def _both_ways(form: MeshForm, rows: MeshRows, scale: Array, *, options: MeshOptions) -> Array:
    """The mean of both directions, over one matrix of logits."""
    marks = Marks(rows.has_a, rows.has_b)
    if options.decoupled:
        names = form.places(rows.a.shape[0]) if rows.ids is None else rows.ids
        marks = marks._replace(row_labels=names, column_labels=names)
    sums = mesh_logsumexp(form, rows.a, rows.b, scale, Labels(marks, rows.ids))
    found = sums.positives
    forth = sums.rows, found.row_sums, found.row_counts
    back = sums.columns, found.column_sums, found.column_counts
    sides = (forth, rows.a, rows.b, rows.has_b), (back, rows.b, rows.a, rows.has_a)
    losses = [_losses(form, *side, scale=scale, options=options) for side in sides]
    return jnp.where(rows.has_a & rows.has_b, (losses[0] + losses[1]) / 2, 0)


def _losses(
    form: MeshForm,
    sums: tuple[Array, Array, Array],
    x: Array,
    y: Array,
    there: Array,
    *,
    scale: Array,
    options: MeshOptions,
) -> Array:
    """Of rows x over columns y, from log-sum-exps, sums over positives and their numbers."""
    lse, matched, matches = sums
    matched = matched / jnp.where(matches > 0, matches, 1)
    losses = lse - matched
    total, count = _all_columns(form, y, there)
    if options.label_smoothing > 0:
        everything = _mean(x, total, count, scale=scale)
        losses = losses + options.label_smoothing * (matched - everything)
    return jnp.where(count > matches, losses, 0) if options.decoupled else losses


def _all_columns(form: MeshForm, y: Array, there: Array) -> tuple[Array, Array]:
    """The sum [d] and the number of the columns of all devices."""
    wide = accumulation_dtype(y)
    return lax.psum((jnp.sum(y.astype(wide), axis=0), jnp.sum(there.astype(wide))), form.axis)


def _mean(x: Array, total: Array, count: Array, *, scale: Array) -> Array:
    """The mean logit of each row with columns whose vectors sum to `total`."""
    sums = jnp.sum(x.astype(total.dtype) * total[None, :], axis=1)
    return scale * sums / jnp.maximum(count, 1)


def _widened(ids: Array, others: Array) -> tuple[Array, Array]:
    """Both in one dtype: NumPy's, since strict promotion has none; canonical, without int64."""
    wide = jax.dtypes.canonicalize_dtype(np.promote_types(ids.dtype, others.dtype))
    return ids.astype(wide), others.astype(wide)
