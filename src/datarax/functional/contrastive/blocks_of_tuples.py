r"""Symile's loss over every tuple of rows, block by block: n^M logits, of which few are held.

The tuples are laid out as prefixes (a row of each of the first M - 2 modalities) times rows of the
last but one times all rows of the last. A block takes some prefixes with many rows, or one prefix
with some. Its logits give the log-sum-exp of each of its first M - 1 indices over the last, which
is all that the first M - 1 anchors need of them. Backward as in `row_blocks`: with the final
log-sum-exps $c^m_i$ known, their parts are those of sums of $e^{L - c}$, block by block.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from datarax.functional.contrastive.tiles import choose_tile
from datarax.functional.masking import masked_logsumexp
from datarax.functional.similarity import pairwise_dot_product

# A block of logits is held with a few more of its size.
_BUDGET = {"cpu": 8 * 2**20}
_HELD = 4


class _Shape(NamedTuple):
    """Of a block: how many prefixes, and how many rows of the last modality but one."""

    prefixes: int
    rows: int


class _Block(NamedTuple):
    """Logits [p, t, n] of a block; of its tuples, which count, and where they stand.

    partial: [p, t], the log-sum-exps over the last index.
    kept: bool [p, t]; last: bool [n].
    prefix: [p] for each modality before the last two; index: [t], those of the last but one.
    """

    logits: Array
    partial: Array
    kept: Array
    last: Array
    prefix: tuple[Array, ...]
    index: Array


def tuple_info_nce(rows: list[Array], scale: Array, *, used: Array, tile: int | None) -> Array:
    """The mean over anchors of their losses against every tuple of used rows.

    Args:
      rows: M >= 2 arrays [n, d] of one dtype, finite.
      scale: factor of the logits.
      used: bool [n].
      tile: the first M - 1 indices of how many tuples a block holds; `None` chooses.

    Returns:
      One loss per row, 0 with gradient 0 where not used.
    """
    n, count = len(rows[0]), len(rows)
    if tile is None:
        size = scale.dtype.itemsize * _HELD
        budget = _BUDGET.get(jax.default_backend())
        tile = choose_tile(n ** (count - 1), n, itemsize=size, budget=budget)
    shape = _Shape(max(1, min(tile // n, n ** (count - 2))), min(tile, n))
    used = lax.optimization_barrier(used)  # of a constant, blocks of masks would be folded
    normalisers, own = _sums(shape, tuple(rows), scale, used)
    return jnp.where(used, jnp.mean(normalisers - own[None, :], axis=0), 0)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sums(shape: _Shape, rows: tuple[Array, ...], scale: Array, used: Array) -> tuple[Array, Array]:
    """The log-sum-exps [M, n] of each anchor of each modality, and the positive logits [n]."""

    def step(carry: tuple, number: Array) -> tuple:
        peak, mass, own = carry
        block = _block(shape, rows, scale=scale, used=used, number=number)
        higher = jnp.maximum(peak, _peaks(block, len(rows)))
        part, matched = _masses(block, _finite(higher))
        mass = mass * jnp.exp(_finite(peak) - _finite(higher)) + part
        return (higher, mass, own + matched), None

    # `_like` the scale: under `shard_map` the carry of a loop must vary over devices as its body.
    zero = jnp.zeros_like(scale, shape=(len(rows), used.shape[0]))
    (peak, mass, own), _ = lax.scan(step, (zero - jnp.inf, zero, zero[0]), _steps(shape, rows))
    return _finite(peak) + jnp.log(jnp.where(mass > 0, mass, 1)), own


def _forward(shape: _Shape, rows: tuple[Array, ...], scale: Array, used: Array) -> tuple:
    normalisers, own = _sums(shape, rows, scale, used)
    return (normalisers, own), (rows, scale, used, normalisers)


def _backward(shape: _Shape, kept: tuple, slopes: tuple) -> tuple:
    rows, scale, used, normalisers = kept

    def step(carry: tuple, number: Array) -> tuple:
        def parts(rows: tuple[Array, ...], scale: Array) -> tuple[Array, Array]:
            return _masses(_block(shape, rows, scale=scale, used=used, number=number), normalisers)

        _, pull = jax.vjp(parts, rows, scale)
        return jax.tree.map(jnp.add, carry, pull(slopes)), None

    start = jax.tree.map(jnp.zeros_like, (rows, scale))
    (of_rows, of_scale), _ = lax.scan(step, start, _steps(shape, rows))
    return of_rows, of_scale, None


_sums.defvjp(_forward, _backward)


def _steps(shape: _Shape, rows: tuple[Array, ...]) -> Array:
    n, prefixes = rows[0].shape[0], rows[0].shape[0] ** (len(rows) - 2)
    return jnp.arange(-(-prefixes // shape.prefixes) * -(-n // shape.rows), dtype=jnp.int32)


def _block(
    shape: _Shape, rows: tuple[Array, ...], *, scale: Array, used: Array, number: Array
) -> _Block:
    *first, second, last = rows
    n = used.shape[0]
    across = -(-n // shape.rows)
    flat = number // across * shape.prefixes + jnp.arange(shape.prefixes, dtype=jnp.int32)
    prefix = tuple((flat // n**m) % n for m in range(len(first)))
    begin = number % across * shape.rows
    # The last block begins earlier where rows do not divide evenly, and skips what was counted.
    index = jnp.minimum(begin, n - shape.rows) + jnp.arange(shape.rows, dtype=jnp.int32)
    chosen = flat < n ** len(first)
    factor = jnp.ones((shape.prefixes, second.shape[1]), second.dtype)
    for x, at in zip(first, prefix, strict=True):
        chosen = chosen & used[at]
        factor = factor * x[at]
    fresh = (index >= begin) & used[index]
    here = lax.dynamic_slice_in_dim(second, index[0], shape.rows)
    tuples = (factor[:, None, :] * here[None, :, :]).reshape(-1, second.shape[1])
    logits = pairwise_dot_product(scale * tuples, last).reshape(shape.prefixes, shape.rows, n)
    kept = chosen[:, None] & fresh[None, :]
    some = masked_logsumexp(logits, where=used[None, None, :], axis=2)
    return _Block(logits, some, kept, used, prefix, index)


def _peaks(block: _Block, count: int) -> Array:
    """[M, n], an upper bound of the logits of each anchor in a block, -inf for those not in it."""
    n = block.last.shape[0]
    highest = jnp.where(block.kept, block.partial, -jnp.inf)
    nowhere = jnp.full(n, -jnp.inf, highest.dtype)
    tuples = jnp.max(block.logits, axis=(0, 1), where=block.kept[:, :, None], initial=-jnp.inf)
    peaks = [nowhere.at[at].max(jnp.max(highest, axis=1)) for at in block.prefix]
    peaks.append(nowhere.at[block.index].max(jnp.max(highest, axis=0)))
    return jnp.stack([*peaks, jnp.where(block.last, tuples, -jnp.inf)])


def _masses(block: _Block, shift: Array) -> tuple[Array, Array]:
    """[M, n], the sums of e^(L - shift) of each anchor over a block, and its positive logits."""
    n = block.last.shape[0]
    none = jnp.zeros(n, shift.dtype)

    def mass(shift: Array, *, axis: int) -> Array:
        lower = jnp.where(block.kept, block.partial - shift, 0)
        return jnp.sum(jnp.where(block.kept, jnp.exp(lower), 0), axis=axis)

    masses = [
        none.at[at].add(mass(shift[m][at][:, None], axis=1)) for m, at in enumerate(block.prefix)
    ]
    masses.append(none.at[block.index].add(mass(shift[-2][block.index][None, :], axis=0)))
    kept = block.kept[:, :, None] & block.last[None, None, :]
    lower = jnp.where(kept, block.logits - shift[-1][None, None, :], 0)
    masses.append(jnp.sum(jnp.where(kept, jnp.exp(lower), 0), axis=(0, 1)))
    own = block.kept
    for at in block.prefix:
        own = own & (at[:, None] == block.index[None, :])
    at = jnp.broadcast_to(block.index[None, :, None], (*own.shape, 1))
    matched = jnp.take_along_axis(block.logits, at, axis=2)[:, :, 0]
    matched = jnp.sum(jnp.where(own, matched, 0), axis=0)
    return jnp.stack(masses), none.at[block.index].add(matched)


def _finite(x: Array) -> Array:
    return jnp.where(jnp.isneginf(x), 0, x)
