r"""The sigmoid loss of rows that lie on several devices, each against the columns of all.

For use under `shard_map`, as `mesh_logsumexp`. A row's loss over a chunk of columns needs no other
chunk, so the gradients are formed in the forward pass, and that of y goes round with y: a device
receives 2 U elements. It is that for equal cotangents of all rows (as a mean has them); for others
it is formed again, which takes 2 U more.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from datarax.functional.contrastive.marks import Marks
from datarax.functional.contrastive.mesh_devices import Exchange, MeshForm, Spread
from datarax.functional.contrastive.rules import slope_alone
from datarax.functional.contrastive.tiled_sigmoid import (
    Line,
    Sums,
    own_slopes,
    sigmoid_column_gradients,
    sigmoid_row_gradients,
    sigmoid_sums,
)
from datarax.functional.contrastive.tiles import logits_of, narrowed

Guest = tuple[Array, Array, Array]  # rows of y, which are there, and their labels


class SigmoidRows(NamedTuple):
    """The rows of a loss [b, d], which are there, their ids, and soft targets [b, N] instead."""

    a: Array
    b: Array
    where: Array
    ids: Array | None
    targets: Array | None


def mesh_sigmoid(spread: Spread, rows: SigmoidRows, *, line: Line, exchange: Exchange) -> Array:
    """The losses of the rows.

    Args:
      spread: the devices.
      rows: all rows, or those of a device under `shard_map`.
      line: scale and bias.
      exchange: how rows travel.
    """

    def local(count: int, rows: SigmoidRows, line: Line) -> Array:
        return _local_losses(exchange.form(spread.axis, count, rows.b), rows, line)

    if rows.targets is not None and spread.mesh is not None:
        more = -rows.a.shape[0] % spread.count
        rows = rows._replace(targets=jnp.pad(rows.targets, [(0, 0), (0, more)]))
    return spread.run(local, rows, line)


def _local_losses(form: MeshForm, rows: SigmoidRows, line: Line) -> Array:
    rows, line = form.varying((rows, line))
    x, y = (jnp.where(rows.where[:, None], side, 0) for side in (rows.a, rows.b))
    if rows.targets is not None:
        return _soft_losses(form, rows._replace(a=x, b=y), line)
    labels = form.places(x.shape[0]) if rows.ids is None else rows.ids
    losses = mesh_sigmoid_rows(form, x, y, line, Marks(rows.where, rows.where, labels, labels))
    return jnp.where(rows.where, losses, 0)


def _soft_losses(form: MeshForm, rows: SigmoidRows, line: Line) -> Array:
    """Of soft targets, which have the size of the logits: these are held whole, too."""
    everyone = form.gathered(rows.b)
    logits = logits_of(rows.a, everyone) * line.scale + line.bias
    pairs = rows.where[:, None] & form.gathered(rows.where)[None, :]
    soft = jnp.where(pairs, rows.targets, 0).astype(logits.dtype)
    losses = soft * jax.nn.softplus(-logits) + (1 - soft) * jax.nn.softplus(logits)
    return jnp.sum(jnp.where(pairs, losses, 0), axis=1)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def mesh_sigmoid_rows(form: MeshForm, x: Array, y: Array, line: Line, marks: Marks) -> Array:
    """The losses [b] of the local rows over the columns of all devices.

    Args:
      form: the devices, and how they exchange rows.
      x, y: [b, d], 0 where a row is absent.
      line: scale and bias, made varying before, where they are replicated.
      marks: of local rows and columns, all but `own`; labels are global.
    """
    xs, ys = (narrowed(v, form.operands) for v in (x, y))

    def block(guest: Guest, own: Array | None) -> Array:
        marked = _with_columns(marks, guest, own)
        return sigmoid_sums(
            xs, guest[0], line=line, marks=marked, tile=form.block_rows(x, guest[0])
        )

    guest = (ys, marks.columns, marks.column_labels)
    if form.collective == "gather":
        return block(jax.tree.map(form.gathered, guest), None)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        losses, guest = carry
        guest = form.hop(guest)
        return (losses + block(guest, None), guest), None

    return lax.scan(step, (block(guest, None), guest), None, length=form.count - 1)[0][0]


def _forward(form: MeshForm, x: Array, y: Array, line: Line, marks: Marks) -> tuple[Array, Any]:
    xs, ys = (narrowed(v, form.operands) for v in (x, y))

    def block(guest: Guest, own: Array | None) -> tuple[tuple[Sums, Array], Array]:
        marked = _with_columns(marks, guest, own)
        tile = form.block_rows(x, guest[0])
        sums, of_x, of_y = sigmoid_row_gradients(xs, guest[0], line=line, marks=marked, tile=tile)
        return (sums, of_x), of_y

    (sums, of_x), of_y = _exchanged(form, block, (ys, marks.columns, marks.column_labels))
    return sums.losses, (x, y, line, marks, sums, of_x, of_y)


def _backward(form: MeshForm, residuals: Any, g: Array) -> tuple:
    x, y, line, marks, sums, of_x, of_y = residuals
    xs, ys = (narrowed(v, form.operands) for v in (x, y))
    level, equal = form.level(g, marks.rows)
    again, given = partial(_columns_again, form), (xs, ys, line, marks)
    d_y = lax.cond(
        equal,
        lambda: level * of_y + slope_alone(again, g, given),
        lambda: again(g, given),
    )
    places = lax.iota(jnp.int32, x.shape[0])
    own = g * own_slopes(sums.own, marks=marks._replace(own=places))
    d_x = g[:, None] * of_x + own[:, None] * ys.astype(g.dtype)
    d_y = d_y + own[:, None] * xs.astype(g.dtype)
    d_scale = jnp.sum(d_x * xs.astype(g.dtype))
    of_line = Line(d_scale, jnp.sum(g * sums.slopes + own))
    return (line.scale * d_x).astype(x.dtype), (line.scale * d_y).astype(y.dtype), of_line, None


mesh_sigmoid_rows.defvjp(_forward, _backward)


def _columns_again(form: MeshForm, g: Array, given: tuple) -> Array:
    x, y, line, marks = given

    def block(guest: Guest, own: Array | None) -> tuple[tuple, Array]:
        marked = _with_columns(marks, guest, own)
        tile = form.block_rows(x, guest[0])
        options = {"line": line, "marks": marked, "weights": g, "tile": tile}
        return (), sigmoid_column_gradients(x, guest[0], **options)

    return _exchanged(form, block, (y, marks.columns, marks.column_labels))[1]


def _exchanged(form: MeshForm, block: Any, guest: Guest) -> tuple[Any, Array]:
    """What `block` gives of all columns, summed: for the local rows, and for the local columns.

    `block` maps columns, and the place of each row's own among them where it is there, to both.
    """
    rows = guest[0].shape[0]
    if form.collective == "gather":
        of_rows, of_columns = block(jax.tree.map(form.gathered, guest), form.places(rows))
        return of_rows, form.scattered(of_columns)
    own, own_columns = block(guest, lax.iota(jnp.int32, rows))

    def step(carry: Any, _: None) -> tuple[Any, None]:
        of_rows, of_columns, guest = carry
        guest = form.hop(guest)
        found, added = block(guest, None)
        of_rows = jax.tree.map(jnp.add, of_rows, _like(of_rows, found))
        return (of_rows, form.hop(of_columns + added), guest), None

    start = (own, jnp.zeros_like(own_columns), guest)
    (of_rows, of_columns, _), _ = lax.scan(step, start, None, length=form.count - 1)
    return of_rows, own_columns + of_columns


def _like(whole: Any, part: Any) -> Any:
    """The sums of a chunk without own pairs, whose logits add nothing to those of the own chunk."""
    if not whole:
        return part
    sums, of_x = part
    return sums._replace(own=jnp.zeros_like(sums.losses)), of_x


def _with_columns(marks: Marks, guest: Guest, own: Array | None) -> Marks:
    return marks._replace(columns=guest[1], column_labels=guest[2], own=own)
