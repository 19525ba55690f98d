"""Which pairs of a block of logits count, which is a row's own, and what is read at it."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array


class Marks(NamedTuple):
    """Arrays of the rows [n] and columns [m] of a matrix of logits; `None` costs nothing.

    rows, columns: bool [n], [m], which of them are there.
    row_labels, column_labels: integers [n], [m]; a pair with equal labels counts nowhere in a
      softmax, and is positive in a sigmoid loss.
    own: int32 [n], the column that belongs to each row.
    """

    rows: Any = None
    columns: Any = None
    row_labels: Any = None
    column_labels: Any = None
    own: Any = None


def without_absent(x: Array, where: Array | None) -> Array:
    """0 in place of rows that are not there, whatever they hold."""
    return x if where is None else jnp.where(where[:, None], x, 0)


def of_rows(marks: Marks) -> Marks:
    """The marks that are cut into blocks with the rows."""
    return marks._replace(columns=None, column_labels=None)


def of_columns(marks: Marks) -> Marks:
    """The marks that are cut into chunks with the columns."""
    return Marks(columns=marks.columns, column_labels=marks.column_labels)


def with_diagonal(marks: Marks, x: Array) -> Marks:
    """Column `i` belongs to row `i`."""
    return marks._replace(own=jnp.arange(x.shape[0], dtype=jnp.int32))


def counted_from(own: Array | None, index: Array) -> Array | None:
    """The own columns, counted from the first of a chunk whose columns are `index`."""
    return None if own is None else own - index[0]


def picked(products: Array, own: Array | None, before: Array | None = None) -> Array | None:
    """The entry of each row in its own column; `before` where that is no column of these."""
    if own is None:
        return None
    if before is None:
        return jnp.take_along_axis(products, own[:, None], axis=1)[:, 0]
    last = products.shape[1] - 1
    found = jnp.take_along_axis(products, jnp.clip(own, 0, last)[:, None], axis=1)[:, 0]
    return jnp.where((own >= 0) & (own <= last), found, before)


def without_own(weights: Array, own: Array | None) -> Array:
    """The weights, 0 at the own pairs."""
    if own is None:
        return weights
    columns = jnp.arange(weights.shape[1], dtype=own.dtype)
    return jnp.where(columns[None, :] == own[:, None], 0, weights)
