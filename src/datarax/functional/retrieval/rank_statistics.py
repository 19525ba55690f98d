"""Statistics of ranks over the queries that count."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from datarax.functional.checks import broadcast_mask
from datarax.functional.masking import masked_mean


def recall_at_k(
    ranks: Float[Array, " n"], *, k: int, where: Array | None = None
) -> Float[Array, ""]:
    """Share of the counted queries whose 0-based rank is below `k` (any-hit for many positives).

    Args:
      ranks: from `ranks`.
      k: how many results are looked at, at least 1.
      where: bool [n], the queries that count: the second result of `ranks`.

    Returns:
      A scalar in [0, 1]; 0 if no query counts.

    Raises:
      ValueError: if `k < 1`.

    Example:
      >>> recall_at_k(jnp.array([0.0, 3.0]), k=1)
      Array(0.5, dtype=float32)
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return masked_mean((ranks < k).astype(ranks.dtype), where=where)


def mean_rank(ranks: Float[Array, " n"], *, where: Array | None = None) -> Float[Array, ""]:
    """Mean 1-based rank of the counted queries; 0 if none counts.

    Example:
      >>> mean_rank(jnp.array([0.0, 3.0]))
      Array(2.5, dtype=float32)
    """
    return jnp.where(_any(ranks, where), masked_mean(ranks, where=where) + 1, 0)


def median_rank(
    ranks: Float[Array, " n"], *, where: Array | None = None, floor: bool = False
) -> Float[Array, ""]:
    """Median 1-based rank of the counted queries; 0 if none counts.

    Of an even number it is the mean of the middle two; `floor` rounds it down, as open_clip does.

    Example:
      >>> median_rank(jnp.array([0.0, 3.0, 9.0]))
      Array(4., dtype=float32)
    """
    keep = broadcast_mask(where, shape=ranks.shape, name="where")
    ordered = jnp.sort(jnp.append(jnp.where(keep, ranks, jnp.inf), jnp.inf))
    count = jnp.sum(keep)
    middle = jnp.stack([jnp.maximum(count - 1, 0) // 2, count // 2])
    median = jnp.mean(ordered[middle])
    return jnp.where(count > 0, (jnp.floor(median) if floor else median) + 1, 0)


def mean_reciprocal_rank(
    ranks: Float[Array, " n"], *, where: Array | None = None
) -> Float[Array, ""]:
    r"""Mean of $1 / (r + 1)$ over the counted queries, in [0, 1]; 0 if none counts.

    Example:
      >>> mean_reciprocal_rank(jnp.array([0.0, 3.0]))
      Array(0.625, dtype=float32)
    """
    return masked_mean(1 / (ranks + 1), where=where)


def _any(ranks: Array, where: Array | None) -> Array:
    return jnp.any(broadcast_mask(where, shape=ranks.shape, name="where"))
