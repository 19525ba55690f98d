r"""The softmax loss of rows that lie on several devices, over the columns of all and others.

For use under `shard_map`, as `mesh_logsumexp`: k devices hold N rows, and U = (k - 1)/k N d. The
rows alone are normalised, and

- by `"gather"` a row meets all columns at once. The gradients are formed in the forward pass, and
  that of the columns goes home with it: 3 products, and a device receives 2 U. It is that for equal
  cotangents of all rows (as a mean has them); for others it is formed again, which takes 2 products
  and 2 U more.
- by `"ring"` a row's log-sum-exp is known when the last columns have come by, and the gradient of
  the first needs it: a device that keeps neither all columns nor all logits of its rows forms the
  logits twice. 4 products, and 3 U.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from datarax.functional.checks import accumulation_dtype
from datarax.functional.contrastive.marks import Marks
from datarax.functional.contrastive.mesh_devices import MeshForm
from datarax.functional.contrastive.mesh_logsumexp import below
from datarax.functional.contrastive.mesh_positives import Groups, counts, groups_of, others
from datarax.functional.contrastive.rules import slope_alone
from datarax.functional.contrastive.tiled_softmax import (
    Weights,
    log_sum,
    merged,
    own_weights,
    softmax_gradients,
    softmax_row_gradients,
    softmax_statistics,
)
from datarax.functional.contrastive.tiles import narrowed, row_dot_products


@dataclass(frozen=True)
class RowForm:
    """How the devices exchange rows, and what the loss is.

    share: of the target that lies on the positives.
    decoupled: they leave the denominator.
    """

    mesh: MeshForm
    share: float = 1.0
    decoupled: bool = False


class RowMarks(NamedTuple):
    """Which local rows and columns [b], and which more columns [k] count, and the ids of all.

    A row that counts has its own column, row `i` of y. Without ids that is its only positive; more
    columns without ids are nobody's.
    """

    rows: Array
    columns: Array
    more: Array
    ids: Array | None = None
    more_ids: Array | None = None


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def mesh_row_losses(
    form: RowForm, x: Array, columns: tuple[Array, Array], scale: Array, marks: RowMarks
) -> Array:
    """Log-sum-exp minus `share` times the mean of the positives [b]; 0 for a row without pairs.

    Args:
      form: the devices, how they exchange rows, and the loss.
      x: the local rows [b, d], 0 where they do not count.
      columns: the local y [b, d], and more [k, d] that are the same on every device; 0 where they
        are absent.
      scale: [], made varying before as `more` is, so that their gradients are summed.
      marks: which count.
    """
    local = _local(form, x, columns, scale=scale, marks=marks)
    if form.mesh.collective == "ring":
        return _losses(local, _ring_sums(local))
    return _losses(local, _block_sums(local, local.everyone()))


def _forward(
    form: RowForm, x: Array, columns: tuple[Array, Array], scale: Array, marks: RowMarks
) -> tuple[Array, Any]:
    local = _local(form, x, columns, scale=scale, marks=marks)
    ring = form.mesh.collective == "ring"
    sums, formed = (_ring_sums(local), None) if ring else _formed(local)
    return _losses(local, sums), (x, columns, scale, marks, sums, formed)


def _backward(form: RowForm, residuals: Any, g: Array) -> tuple:
    x, columns, scale, marks, sums, formed = residuals
    local = _local(form, x, columns, scale=scale, marks=marks)
    g = jnp.where(sums.total == 0, 0, g)
    weights = Weights(*below(sums.peak, sums.total, g), partners=local.y)
    mine = local.marked(local.at_home())
    own = own_weights(sums.own, -_each(local, sums) * g, weights, marks=mine)
    weights = weights._replace(own=own)
    if formed is None:
        of_x, of_y, of_more, of_scale = _ring_gradients(local, sums, weights=weights, g=g)
    else:
        of_y, of_more = _of_columns(form, (x, columns, scale, marks, sums), formed[1], g=g)
        of_x = g[:, None] * formed[0] + own[:, None] * local.y.astype(g.dtype)
        of_x, of_scale = scale * of_x, jnp.sum(row_dot_products(of_x, local.x))
    of_y = of_y + (scale * own)[:, None] * local.x.astype(of_y.dtype)
    of_columns = of_y.astype(columns[0].dtype), of_more.astype(columns[1].dtype)
    return of_x.astype(x.dtype), of_columns, of_scale.astype(scale.dtype), None


mesh_row_losses.defvjp(_forward, _backward)


class _Guest(NamedTuple):
    """Columns that travel: their rows of y, which are there, and their ids."""

    y: Array
    there: Array
    ids: Array | None


class _Block(NamedTuple):
    """Columns at hand [m], the groups of their ids, and the places [b] of the rows' own, if any."""

    y: Array
    there: Array
    groups: Array | None
    own: Array | None


class _Sums(NamedTuple):
    """Of each row: maximum, sum below it, own logit; of its positives the products and the number.

    The products leave out the own one, the number does not.
    """

    peak: Array
    total: Array
    own: Array
    matched: Array
    count: Array


class _Local(NamedTuple):
    """What a device has."""

    form: RowForm
    x: Array
    y: Array
    more: Array
    scale: Array
    marks: RowMarks
    groups: Groups | None

    def guest(self) -> _Guest:
        """The local columns."""
        return _Guest(self.y, self.marks.columns, self.marks.ids)

    def everyone(self) -> _Block:
        """The columns of all devices, and more."""
        gathered = jax.tree.map(self.form.mesh.gathered, self.guest())
        return self._with_more(gathered, self.form.mesh.places(len(self.y)))

    def at_home(self) -> _Block:
        """The local columns, and more."""
        return self._with_more(self.guest(), lax.iota(jnp.int32, len(self.y)))

    def passing(self, guest: _Guest) -> _Block:
        """The columns of another device."""
        groups = None if self.groups is None else self.groups.places(guest.ids)
        return _Block(guest.y, guest.there, groups, None)

    def _with_more(self, guest: _Guest, own: Array) -> _Block:
        y, there, groups, _ = self.passing(guest)
        y, there = jnp.concatenate([y, self.more]), jnp.concatenate([there, self.marks.more])
        if self.groups is not None:
            nobody = jnp.full_like(groups, len(self.y), shape=self.marks.more.shape)
            ids = self.marks.more_ids
            more = nobody if ids is None else self.groups.places(ids)
            groups = jnp.concatenate([groups, more])
        return _Block(y, there, groups, own)

    def marked(self, block: _Block) -> Marks:
        """Which pairs of the local rows with a block count."""
        marks = Marks(self.marks.rows, block.there, own=block.own)
        if not self.form.decoupled or (self.groups is None and block.own is None):
            return marks
        if self.groups is not None:
            return marks._replace(row_labels=self.groups.own, column_labels=block.groups)
        return marks._replace(row_labels=block.own, column_labels=jnp.arange(len(block.y)))

    def tile(self, block: _Block) -> int:
        """Rows of a block of logits."""
        return self.form.mesh.block_rows(self.x, block.y)

    def near(self, block: _Block, weights: Array | int = 1) -> tuple[Array, Array]:
        """Sums over the positives but the own: of a row's columns, of a column's weighted rows."""
        assert self.groups is not None
        x, y = (v.astype(accumulation_dtype(v)) for v in (self.x, block.y))
        return others(self.groups, (weights * x, y), places=block.groups, own=block.own)

    def home(self, of_columns: Array) -> tuple[Array, Array]:
        """The sum over devices at the local columns, and what is of more columns."""
        n = len(of_columns) - len(self.more)
        return self.form.mesh.scattered(of_columns[:n]), of_columns[n:]


def _local(
    form: RowForm, x: Array, columns: tuple[Array, Array], *, scale: Array, marks: RowMarks
) -> _Local:
    x, y, more = (narrowed(v, form.mesh.operands) for v in (x, *columns))
    groups = None if marks.ids is None else groups_of(marks.ids)
    return _Local(form, x, y, more, scale, marks, groups)


def _losses(local: _Local, sums: _Sums) -> Array:
    matched = (sums.own + local.scale * sums.matched) / jnp.maximum(sums.count, 1)
    losses = log_sum(sums.peak, sums.total) - local.form.share * matched
    return jnp.where(sums.total == 0, 0, losses)


def _each(local: _Local, sums: _Sums) -> Array:
    """The weight of each positive of a row."""
    return jnp.where(sums.total == 0, 0, local.form.share / jnp.maximum(sums.count, 1))


def _block_sums(local: _Local, block: _Block) -> _Sums:
    marks, tile = local.marked(block), local.tile(block)
    stats = softmax_statistics(
        local.x, block.y, scale=local.scale, marks=marks, tile=tile, columns=False
    )
    own = jnp.zeros_like(stats.row_max) if stats.own is None else stats.own
    return _Sums(stats.row_max, stats.row_sum, own, *_positives(local, block))


def _positives(local: _Local, block: _Block) -> tuple[Array, Array]:
    """The sum of the products with the positives but the own, and how many there are with it."""
    wide = accumulation_dtype(local.x)
    if local.groups is None:
        zero = jnp.zeros_like(local.x, shape=local.x.shape[:1], dtype=wide)
        return zero, zero if block.own is None else zero + 1
    count = counts(local.groups, block.there.astype(wide), places=block.groups)
    return row_dot_products(local.x, local.near(block)[0]), count


def _formed(local: _Local) -> tuple[_Sums, tuple]:
    """The sums, and what cotangents multiply: of x, and of both kinds of columns.

    No scale is multiplied in, and the own pairs are left out.
    """
    block = local.everyone()
    marks, tile = local.marked(block), local.tile(block)
    stats, of_x, of_columns = softmax_row_gradients(
        local.x, block.y, scale=local.scale, marks=marks, tile=tile
    )
    sums = _Sums(stats.row_max, stats.row_sum, stats.own, *_positives(local, block))
    if local.groups is not None:
        each = _each(local, sums)[:, None]
        of_row, of_column = local.near(block, each)
        of_x, of_columns = of_x - each * of_row, of_columns - of_column
    return sums, (of_x, local.home(of_columns))


def _of_columns(form: RowForm, given: tuple, formed: tuple, *, g: Array) -> tuple[Array, Array]:
    """The gradients of y and of more columns, but for the own pairs."""
    *_, scale, _, sums = given
    level, equal = form.mesh.level(g, sums.total != 0)
    again = partial(_columns_again, form)

    def scaled() -> tuple[Array, Array]:
        slopes = slope_alone(again, g, given)
        return jax.tree.map(lambda found, zero: scale * level * found + zero, formed, slopes)

    return lax.cond(equal, scaled, lambda: again(g, given))


def _columns_again(form: RowForm, g: Array, given: tuple) -> tuple[Array, Array]:
    """They, for any cotangents."""
    x, columns, scale, marks, sums = given
    local = _local(form, x, columns, scale=scale, marks=marks)
    weights = Weights(*below(sums.peak, sums.total, g))
    shares = _each(local, sums) * g
    block = local.everyone()
    found = _gradients(local, block, weights=weights, shares=shares, sides=(False, True))
    return local.home(found[1])


def _gradients(
    local: _Local,
    block: _Block,
    *,
    weights: Weights,
    shares: Array,
    start: Array | None = None,
    sides: tuple[bool, bool] = (True, True),
) -> tuple[Any, Any, Array]:
    """Of x, of the block's columns (added to `start`) and of the scale; `shares` of positives."""
    found = softmax_gradients(
        local.x,
        block.y,
        scale=local.scale,
        marks=local.marked(block),
        weights=weights,
        tile=local.tile(block),
        sides=sides,
        start=start,
    )
    if local.groups is None:
        return tuple(found)
    of_row, of_column = local.near(block, shares[:, None])
    of_x = None if found.x is None else found.x - local.scale * shares[:, None] * of_row
    of_scale = found.scale - jnp.sum(shares * row_dot_products(local.x, of_row))
    return of_x, found.y - local.scale * of_column, of_scale


def _ring_sums(local: _Local) -> _Sums:
    def step(carry: Any, _: None) -> tuple[Any, None]:
        sums, guest = carry
        guest = local.form.mesh.hop(guest)
        found = _block_sums(local, local.passing(guest))
        peak, total = merged(found.peak, found.total, sums.peak, sums.total)
        matched, count = sums.matched + found.matched, sums.count + found.count
        return (_Sums(peak, total, sums.own, matched, count), guest), None

    start = _block_sums(local, local.at_home()), local.guest()
    return lax.scan(step, start, None, length=local.form.mesh.count - 1)[0][0]


def _ring_gradients(local: _Local, sums: _Sums, *, weights: Weights, g: Array) -> tuple:
    """Of x, of y but for the own pairs, of more columns, and of the scale."""
    gradients = partial(_gradients, local, shares=_each(local, sums) * g)
    own = gradients(local.at_home(), weights=weights)
    foreign = weights._replace(own=None, partners=None)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        of_x, of_y, of_scale, guest = carry
        guest = local.form.mesh.hop(guest)
        found = gradients(local.passing(guest), weights=foreign, start=of_y)
        of_y = local.form.mesh.hop(found[1])
        return (of_x + found[0], of_y, of_scale + found[2], guest), None

    of_own, of_more = own[1][: len(local.y)], own[1][len(local.y) :]
    carry = (own[0], jnp.zeros_like(of_own), own[2], local.guest())
    length = local.form.mesh.count - 1
    (of_x, of_y, of_scale, _), _ = lax.scan(step, carry, None, length=length)
    return of_x, of_own + of_y, of_more, of_scale
