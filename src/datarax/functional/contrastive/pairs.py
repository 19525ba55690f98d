"""What is common to losses over pairs of modalities: their mean, and similarities to watch."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from datarax.functional.checks import (
    accumulation_dtype,
    broadcast_mask,
    check_floating,
    check_mask,
    check_rank,
    check_same_shape,
)


def average_over_pairs(
    losses: Num[Array, "... p"], *, where: Array | None = None, weights: Array | None = None
) -> tuple[Float[Array, "..."], Bool[Array, "..."]]:
    r"""Weighted mean of a row's losses over the pairs it is in, $\sum_p w_p \ell_p / \sum_p w_p$.

    Args:
      losses: one a pair, on the last axis.
      where: bool, broadcastable to `losses`, the pairs that a row is in; `None`: all.
      weights: [p], at least 0; `None` weighs all alike.

    Returns:
      The means, at least float32, and bool, the rows that are in a pair of positive weight. The
      others have mean and gradient exactly 0. A masked loss may be NaN.

    Raises:
      TypeError: if `losses` are not floating point or `where` is not boolean.
      ValueError: if a shape does not fit.

    Example:
      >>> average_over_pairs(jnp.array([1.0, 4.0]), weights=jnp.array([2.0, 1.0]))
      (Array(2., dtype=float32), Array(True, dtype=bool))
    """
    check_floating(losses=losses)
    keep = broadcast_mask(where, shape=losses.shape, name="where")
    wide = accumulation_dtype(losses)
    share = jnp.ones(losses.shape[-1], wide)
    if weights is not None:
        if weights.shape != share.shape:
            raise ValueError(f"weights must have shape {share.shape}, got {weights.shape}")
        share = weights.astype(wide)
    kept = jnp.where(keep, jnp.broadcast_to(share, losses.shape), 0)
    total = jnp.sum(kept, axis=-1)
    mean = jnp.sum(kept * jnp.where(keep, losses, 0).astype(wide), axis=-1)
    return mean / jnp.where(total > 0, total, 1), total > 0


def mean_similarities(
    a: Num[Array, "n d"], b: Num[Array, "m e"], *, where: Array | None = None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""Mean dot product of the pairs, $\frac1n \sum_i a_i b_i$, and of all others,
    $\frac{1}{n(n-1)} \big(\sum_i a_i \cdot \sum_j b_j - \sum_i a_i b_i\big)$.

    Their distance says whether a contrastive loss separates. No matrix is formed: the cost is that
    of reading the embeddings.

    Args:
      a, b: embeddings; row `i` of one belongs to row `i` of the other. Not normalised here.
      where: bool [n], the rows that count; `None`: all.

    Returns:
      Two scalars, at least float32; 0 where there is no such pair (no row; n == 1).

    Raises:
      TypeError: if an embedding is not floating point or `where` is not boolean.
      ValueError: if a shape does not fit.

    Example:
      >>> positive, negative = mean_similarities(jnp.eye(2), jnp.eye(2))
      >>> float(positive), float(negative)
      (1.0, 0.0)
    """
    check_floating(a=a, b=b)
    check_rank(2, axes="[n, d]", a=a, b=b)
    check_same_shape(a=a, b=b)
    wide = accumulation_dtype(a, b)
    keep = jnp.ones(a.shape[0], bool)
    if where is not None:
        check_mask(where, shape=keep.shape, name="where")
        keep = where
    a, b = (jnp.where(keep[:, None], x, 0).astype(wide) for x in (a, b))
    n = jnp.sum(keep, dtype=wide)
    own = jnp.sum(a * b)
    others = jnp.sum(jnp.sum(a, axis=0) * jnp.sum(b, axis=0)) - own
    return own / jnp.maximum(n, 1), others / jnp.maximum(n * (n - 1), 1)
