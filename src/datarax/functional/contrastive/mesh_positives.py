r"""Sums over the pairs that share an id, block by block, without a product of a block's size.

A device holds rows x `[b, d]` with ids; a block of columns y `[m, d]` with ids comes by. The ids
are joined by sorting: y is summed by the groups of the local ids, in O((b + m) d).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array


class Groups(NamedTuple):
    """The ids of the local rows [b] in order, and the place of each row's group in them."""

    ordered: Array
    own: Array

    def places(self, ids: Array) -> Array:
        """Where other ids [m] lie, b for those that no local row has."""
        size = self.ordered.shape[0]
        near = jnp.minimum(_first_places(self.ordered, ids), size - 1)
        return jnp.where(self.ordered[near] == ids, near, size)


class Positives(NamedTuple):
    """Over the pairs of a block with equal ids, of its rows [b] and its columns [m].

    row_sums, column_sums: of the products of x_i and y_j.
    row_counts, column_counts: how many columns, how many rows there are.
    """

    row_sums: Array
    row_counts: Array
    column_sums: Array
    column_counts: Array


def groups_of(ids: Array) -> Groups:
    """The groups of the local rows."""
    ordered = jnp.sort(ids)
    return Groups(ordered, _first_places(ordered, ids))


def block_positives(
    groups: Groups,
    sides: tuple[Array, Array],
    *,
    there: tuple[Array, Array],
    ids: Array,
    own: Array | None = None,
) -> Positives:
    """Of x and y, whose absent rows are 0, which are `there`, and the ids of y.

    The sums leave out the pairs of each row with the column that `own` names, and count them: their
    logits are added from the product that the log-sum-exps come from. A row without others has 0.
    """
    x, y = sides
    places = groups.places(ids)
    x_there, y_there = (mask.astype(x.dtype) for mask in there)
    of_x, of_y = others(groups, (x, y), places=places, own=own)
    return Positives(
        jnp.sum(x * of_x, axis=1),
        counts(groups, y_there, places=places),
        jnp.sum(y * of_y, axis=1),
        _picked(_grouped(groups, x_there, groups.own), places),
    )


def positive_gradients(
    groups: Groups,
    sides: tuple[Array, Array],
    *,
    weights: tuple[Array, Array],
    ids: Array,
    own: Array | None = None,
) -> tuple[Array, Array]:
    r"""Of x and y in $\sum (q_i + h_j) x_i y_j$ over pairs with equal ids, but those of `own`."""
    x, y = sides
    q, h = (weight[:, None] for weight in weights)
    places = groups.places(ids)
    of_x, of_y = others(groups, (x, y), places=places, own=own)
    more_of_x, more_of_y = others(groups, (q * x, h * y), places=places, own=own)
    return q * of_x + more_of_x, h * of_y + more_of_y


def others(
    groups: Groups, sides: tuple[Array, Array], *, places: Array, own: Array | None
) -> tuple[Array, Array]:
    """For each row the sum of the columns y in its group, for each column that of the rows x.

    `places` are those of the columns' groups; the column that `own` names is left out of its row.
    """
    x, y = sides
    of_x = _grouped(groups, y, places)[groups.own]
    of_y = _picked(_grouped(groups, x, groups.own), places)
    return (of_x, of_y) if own is None else (of_x - y[own], of_y.at[own].add(-x))


def counts(groups: Groups, there: Array, *, places: Array) -> Array:
    """For each row the sum of `there` [m] over the columns in its group."""
    return _grouped(groups, there, places)[groups.own]


def _grouped(groups: Groups, values: Array, places: Array) -> Array:
    """Sums [b, ...] of the values [m, ...] by their place."""
    size = groups.ordered.shape[0]
    empty = jnp.zeros_like(values, shape=(size, *values.shape[1:]))
    return empty.at[places].add(values, mode="drop")


def _picked(sums: Array, places: Array) -> Array:
    return sums.at[places].get(mode="fill", fill_value=0)


def _first_places(ordered: Array, ids: Array) -> Array:
    """The first place at which an id could stand: the number of smaller ones."""
    return jnp.searchsorted(ordered, ids, method="sort").astype(jnp.int32)
