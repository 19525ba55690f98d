r"""InfoNCE of any similarity of rows with rows, a block of rows at a time, in O(n d) memory.

Forward: each block [t, n] has its rows' log-sum-exps at once, and hands on the running maxima and
sums of the columns. Backward: with the final log-sum-exps $c_j$ of the columns known, the part of a
block in $\partial c_j$ is that of $\sum_i e^{L_{ij} - c_j}$, so each block is formed once more and
pulled back by itself; nothing of it is stored in between. JAX differentiates the similarity.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from datarax.functional.contrastive.tiles import choose_tile, scan_rows
from datarax.functional.masking import masked_logsumexp

# The similarities [t, n] of t rows with all columns, whatever arrays those are made of.
Similarity = Callable[[Array, Any], Array]
# A similarity of several products holds more than its result, and so does its pullback.
_BUDGET = {"cpu": 6 * 2**20}


class _Options(NamedTuple):
    tile: int
    totals: bool


class _Sums(NamedTuple):
    """Of each row or column: the log-sum-exp, the sum over its positives and over all."""

    lse: Array
    own: Array | None
    total: Array | None


def similarity_info_nce(
    similarity: Similarity,
    rows: Array,
    columns: Any,
    *,
    scale: Array,
    directions: str,
    label_smoothing: float,
    where: Array,
    ids: Array | None,
    tile: int,
) -> Array:
    """`info_nce_from_similarity` of `similarity(rows, columns)`, which is never held.

    Args:
      similarity: maps rows [t, d] and the columns to [t, n]; a function of a module, not a closure.
      rows: [n, d], finite.
      columns: a pytree of arrays, finite.
      scale: factor of the similarities, of the dtype of the logits.
      directions, label_smoothing, where, ids: as in `info_nce_from_similarity`.
      tile: rows of a block.

    Returns:
      One loss per row, 0 with gradient 0 where `where` is False.
    """
    options = _Options(tile, label_smoothing > 0)
    where = lax.optimization_barrier(where)  # of a constant, blocks of masks would be folded
    by_row, by_column = _sums(similarity, options, (rows, columns, scale), (where, ids))
    count = jnp.sum(where, dtype=scale.dtype)
    positives = (
        jnp.ones_like(by_row.lse)
        if ids is None
        else _shared(ids, where, tile=tile).astype(scale.dtype)
    )
    losses = []
    for direction, sums in (("a_to_b", by_row), ("b_to_a", by_column)):
        if directions not in ("both", direction):
            continue
        matched = (by_row.own if sums.own is None else sums.own) / jnp.maximum(positives, 1)
        loss = sums.lse - matched
        if label_smoothing > 0:
            loss = loss + label_smoothing * (matched - sums.total / jnp.maximum(count, 1))
        losses.append(jnp.where(where, loss, 0))
    return sum(losses[1:], losses[0]) / len(losses)


def similarity_tile(n: int, *, arrays: int, itemsize: int) -> int:
    """Rows of a block of a similarity that is made of as many arrays [t, n]."""
    budget = _BUDGET.get(jax.default_backend())
    return choose_tile(n, n, itemsize=itemsize * arrays, budget=budget)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sums(
    similarity: Similarity, options: _Options, arrays: tuple, marks: tuple
) -> tuple[_Sums, _Sums]:
    rows, columns, scale = arrays
    where, ids = marks
    n = rows.shape[0]

    def body(carry: tuple, block: tuple) -> tuple:
        peak, mass, own, total = carry
        logits, kept, same = _logits(similarity, block, columns, scale=scale, marks=marks)
        higher = jnp.maximum(peak, jnp.max(logits, axis=0, where=kept, initial=-jnp.inf))
        by_row, part = _reduced(
            logits, kept, same, block[1], shift=_finite(higher), options=options
        )
        mass = mass * jnp.exp(_finite(peak) - _finite(higher)) + part.lse
        return (higher, mass, _plus(own, part.own), _plus(total, part.total)), by_row

    # `_like` the scale: under `shard_map` the carry of a loop must vary over devices as its body.
    zero = jnp.zeros_like(scale, shape=(n,))
    start = (zero - jnp.inf, zero, None if ids is None else zero, zero if options.totals else None)
    (peak, mass, own, total), by_row = scan_rows(
        body, start, (rows, _index(n), where, ids), tile=options.tile
    )
    lse = _finite(peak) + jnp.log(jnp.where(mass > 0, mass, 1))
    return by_row, _Sums(lse, own, total)


def _forward(similarity: Similarity, options: _Options, arrays: tuple, marks: tuple) -> tuple:
    sums = _sums(similarity, options, arrays, marks)
    return sums, (arrays, marks, sums[1].lse)


def _backward(similarity: Similarity, options: _Options, kept: tuple, slopes: tuple) -> tuple:
    (rows, columns, scale), marks, lse = kept
    of_rows, of_columns = slopes

    def body(carry: tuple, block: tuple) -> tuple:
        def block_sums(x: Array, columns: Any, scale: Array) -> tuple[_Sums, _Sums]:
            whole = (x, *block[0][1:])
            logits, kept, same = _logits(similarity, whole, columns, scale=scale, marks=marks)
            return _reduced(logits, kept, same, whole[1], shift=lse, options=options)

        _, pull = jax.vjp(block_sums, block[0][0], columns, scale)
        of_x, *others = pull((block[1], of_columns))
        return jax.tree.map(jnp.add, carry, tuple(others)), of_x

    start = jax.tree.map(jnp.zeros_like, (columns, scale))
    block = (rows, _index(rows.shape[0]), *marks)
    others, of_x = scan_rows(body, start, (block, of_rows), tile=options.tile)
    return (of_x, *others), None


_sums.defvjp(_forward, _backward)


def _logits(
    similarity: Similarity, block: tuple, columns: Any, *, scale: Array, marks: tuple
) -> tuple[Array, Array, Array | None]:
    """A block of logits, which of them count, and which of these are of positives."""
    x, _, where, ids = block
    kept = where[:, None] & marks[0][None, :]
    same = None if ids is None else kept & (ids[:, None] == marks[1][None, :])
    logits = similarity(x, columns).astype(scale.dtype) * scale
    # Without it the product is fused into the difference with its log-sum-exp, rounded otherwise
    # than a positive, and the loss of a row alone is not 0.
    return jnp.maximum(logits, jnp.finfo(logits.dtype).min), kept, same


def _reduced(
    logits: Array,
    kept: Array,
    same: Array | None,
    index: Array,
    *,
    shift: Array,
    options: _Options,
) -> tuple[_Sums, _Sums]:
    """The sums of the rows, and the part of those of the columns: for `lse` of e^(L - shift)."""
    lse = masked_logsumexp(logits, where=kept, axis=1)
    shifted = jnp.where(kept, logits - shift[None, :], 0)
    mass = jnp.sum(jnp.where(kept, jnp.exp(shifted), 0), axis=0)
    if same is None:
        row_own, column_own = jnp.take_along_axis(logits, index[:, None], axis=1)[:, 0], None
        row_own = jnp.where(jnp.any(kept, axis=1), row_own, 0)
    else:
        owned = jnp.where(same, logits, 0)
        row_own, column_own = jnp.sum(owned, axis=1), jnp.sum(owned, axis=0)
    every = jnp.where(kept, logits, 0) if options.totals else None
    row_total, column_total = (
        None if every is None else jnp.sum(every, axis=axis) for axis in (1, 0)
    )
    return _Sums(lse, row_own, row_total), _Sums(mass, column_own, column_total)


def _shared(ids: Array, where: Array, *, tile: int) -> Array:
    """How many kept rows have the id of each."""

    def body(carry: None, block: tuple[Array]) -> tuple[None, Array]:
        same = (block[0][:, None] == ids[None, :]) & where[None, :]
        return carry, jnp.sum(same, axis=1, dtype=jnp.int32)

    return scan_rows(body, None, (ids,), tile=tile)[1]


def _index(n: int) -> Array:
    return jnp.arange(n, dtype=jnp.int32)


def _finite(x: Array) -> Array:
    return jnp.where(jnp.isneginf(x), 0, x)


def _plus(x: Array | None, y: Array | None) -> Array | None:
    return None if x is None or y is None else x + y
