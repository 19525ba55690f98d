"""Symile: contrast of M modalities at once by their multilinear inner product."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num, ScalarLike

from datarax.functional.checks import accumulation_dtype
from datarax.functional.contrastive.blocks_of_tuples import tuple_info_nce
from datarax.functional.contrastive.cross_entropy import softmax_loss
from datarax.functional.contrastive.rows import as_scalar, check_choice, check_modalities
from datarax.functional.contrastive.tiles import check_tile, choose_tile, is_dense, scan_rows
from datarax.functional.similarity import pairwise_dot_product

Negatives = Literal["n_squared", "n"]


def symile(
    embeddings: Sequence[Num[Array, "..."]],
    *,
    logit_scale: ScalarLike,
    negatives: Negatives = "n_squared",
    key: Array | None = None,
    presence: Sequence[Array] | None = None,
    tile: int | None = None,
) -> tuple[Float[Array, " n"], Bool[Array, " n"]]:
    r"""InfoNCE of tuples with the logits $s \sum_d \prod_m x^m_{i_m d}$, a loss for each anchor:

    $\ell_i = \frac1M \sum_m \mathrm{lse}_{t : t_m = i} L_t - L_{i \dots i}$, over tuples `t` of one
    row index a modality; the tuple of one row is the positive.

    Args:
      embeddings: M >= 2 arrays [n, d]. Not normalised here.
      logit_scale: the inverse temperature `s` itself.
      negatives: `"n_squared"` takes every tuple, n^(M-1) an anchor (n^2 for M == 3), computed once
        for all anchors. `"n"` takes n - 1 an anchor: the other modalities
        in an order of their own, drawn for each anchor. A drawn tuple that is the positive is left
        out (in the authors' code it counts as a negative too).
      key: the PRNG key of `"n"`.
      presence: M arrays bool [n]. A row that lacks a modality is removed from the batch.
      tile: rows of the blocks of logits, of n^(M-1) or of n rows by n columns; `None` chooses, and
        takes small batches whole. In blocks `"n_squared"` has a gradient, but no forward mode.

    Returns:
      The losses [n], at least float32, in [0, inf), and bool [n], the rows that have all. The other
      rows have loss and gradient exactly 0, whatever they hold. 0 for `n == 1`. M == 2 with
      `"n_squared"` is `info_nce`.

    Raises:
      TypeError: if an array is not floating point or a mask not boolean.
      ValueError: if M < 2, lengths or shapes differ, `negatives` is unknown, `"n"` comes without a
        key or `"n_squared"` with one.

    Reference: Saporta et al., 2024, arXiv:2411.01053.

    Example:
      >>> losses, used = symile([jnp.eye(2)] * 3, logit_scale=1.0)
      >>> [round(float(x), 4) for x in losses], used.tolist()
      ([0.7437, 0.7437], [True, True])
    """
    masks = check_modalities(embeddings, presence)
    check_choice(negatives, Negatives, name="negatives")
    check_tile(tile)
    if negatives == "n" and key is None:
        raise ValueError("negatives='n' draws permutations: give a key, got None")
    if negatives == "n_squared" and key is not None:
        raise ValueError("negatives='n_squared' draws nothing: key must be None")
    used = jnp.all(jnp.stack(masks), axis=0)
    wide = accumulation_dtype(*embeddings)
    rows = [jnp.where(used[:, None], x, 0).astype(wide) for x in embeddings]
    scale = as_scalar(logit_scale, rows[0], name="logit_scale")
    if key is None:
        n = len(rows[0])
        if is_dense(n ** (len(rows) - 1), n, tile=tile):
            return _every_tuple(rows, scale, used=used), used
        # Of the rows: under `shard_map` its gradient is then summed over devices.
        scale = scale + jnp.zeros_like(rows[0], shape=())
        return tuple_info_nce(rows, scale, used=used, tile=tile), used
    keys = jax.random.split(key, len(rows))
    parts = [
        _shuffled(rows[m], [*rows[:m], *rows[m + 1 :]], scale, used=used, key=keys[m], tile=tile)
        for m in range(len(rows))
    ]
    return sum(parts[1:], parts[0]) / len(parts), used


def _every_tuple(rows: list[Array], scale: Array, *, used: Array) -> Array:
    """The mean over anchors of their losses, from one tensor of logits with an axis a modality."""
    n, count = used.shape[0], len(rows)
    half = count // 2
    logits = scale * pairwise_dot_product(_products(rows[:half]), _products(rows[half:]))
    logits = logits.reshape((n,) * count)
    index = [
        jnp.arange(n).reshape([-1 if m == axis else 1 for m in range(count)])
        for axis in range(count)
    ]
    kept = jnp.ones((n,) * count, bool)
    own = kept
    for x in index:
        kept = kept & used[x]
        own = own & (x == index[0])
    losses = [
        softmax_loss(
            jnp.moveaxis(logits, m, 0).reshape(n, -1),
            candidates=jnp.moveaxis(kept, m, 0).reshape(n, -1),
            positives=jnp.moveaxis(kept & own, m, 0).reshape(n, -1),
        )
        for m in range(count)
    ]
    return sum(losses[1:], losses[0]) / count


def _products(rows: list[Array]) -> Array:
    """The products [n^k, d] of every choice of one row from each of k arrays, the last fastest."""
    products = rows[0]
    for x in rows[1:]:
        products = (products[:, None, :] * x[None, :, :]).reshape(-1, x.shape[1])
    return products


def _shuffled(
    anchor: Array,
    others: list[Array],
    scale: Array,
    *,
    used: Array,
    key: Array,
    tile: int | None,
) -> Array:
    """The losses of one anchor against its own tuple and those of the shuffled others."""
    n = used.shape[0]
    keys = jax.random.split(key, len(others))
    orders = [jax.random.permutation(k, n) for k in keys]
    product, matched, there = jnp.ones_like(anchor), jnp.ones_like(anchor), jnp.ones(n, bool)
    for x, order in zip(others, orders, strict=True):
        product, matched = product * x[order], matched * x
        there = there & used[order]

    def losses(rows: Array, matched: Array, kept: Array, index: Array) -> Array:
        diagonal = index[:, None] == jnp.arange(n, dtype=index.dtype)[None, :]
        drawn_own = jnp.ones(diagonal.shape, bool)
        for order in orders:
            drawn_own = drawn_own & (index[:, None] == order[None, :])
        own = jnp.sum(rows * matched, axis=1)[:, None]
        logits = scale * jnp.where(diagonal, own, pairwise_dot_product(rows, product))
        negatives = kept[:, None] & there[None, :] & ~drawn_own & ~diagonal
        positives = diagonal & kept[:, None]
        return softmax_loss(logits, candidates=negatives | positives, positives=positives)

    arrays = (anchor, matched, used, jnp.arange(n))
    if is_dense(n, n, tile=tile):
        return losses(*arrays)
    blockwise = jax.checkpoint(losses)  # the logits of a block are formed anew, not stored
    rows = choose_tile(n, n, itemsize=scale.dtype.itemsize) if tile is None else tile
    return scan_rows(lambda _, x: (None, blockwise(*x)), None, arrays, tile=rows)[1]
