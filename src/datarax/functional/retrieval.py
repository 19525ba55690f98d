"""How far down its ranking a query finds what belongs to it, with ties counted honestly."""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from datarax.functional.checks import broadcast_mask, check_floating, check_mask, check_rank
from datarax.functional.masking import masked_mean
from datarax.functional.similarity import pairwise_dot_product

Ties = Literal["expected", "optimistic", "pessimistic"]


def ranks(
    queries: Num[Array, "n d"],
    targets: Num[Array, "m e"],
    *,
    positives: Array | None = None,
    query_ids: Array | None = None,
    target_ids: Array | None = None,
    query_presence: Array | None = None,
    target_presence: Array | None = None,
    ties: Ties = "expected",
    block_size: int = 256,
) -> tuple[Float[Array, " n"], Bool[Array, " n"]]:
    r"""0-based rank of each query's best positive among the targets that are not its positives:

    $r_i = |\{j \notin P_i : s_{ij} > s_i^*\}| + \tau\,|\{j \notin P_i : s_{ij} = s_i^*\}|$ with
    $s_{ij} = q_i \cdot t_j$ and $s_i^* = \max_{p \in P_i} s_{ip}$.

    Several positives share credit: the best-ranked one counts (any-hit), the others neither help
    nor stand in its way.

    Args:
      queries, targets: embeddings of one width. Not normalised here.
      positives: integers [n], the index of each query's one positive.
      query_ids, target_ids: integers [n] and [m]; a target is a positive of the queries that share
        its id. `target_ids` defaults to `query_ids` if n == m. Without ids and `positives`, target
        `i` is the positive of query `i`.
      query_presence, target_presence: bool [n] and [m]. An absent target is neither positive nor
        competitor; absent rows may hold NaN.
      ties: the factor tau: `"optimistic"` 0, `"pessimistic"` 1, `"expected"` 1/2, the mean over
        random orders of one positive. A model that gives all targets one score has the expected
        rank of chance, and the optimistic rank of a perfect model.
      block_size: the number of queries whose scores are held at a time.

    Returns:
      Ranks [n], float32 in [0, m), and bool [n]: which queries are present and have a present
      positive. The others have rank 0 and must not be counted. A score of NaN is below all others.

    Raises:
      TypeError: if embeddings are not floating point, ids not integers or masks not boolean.
      ValueError: if shapes do not fit, ids are missing or given twice, or a choice is unknown.

    Example:
      >>> found, counted = ranks(jnp.eye(3), jnp.eye(3)[jnp.array([1, 0, 2])])
      >>> found.tolist(), counted.tolist()
      ([1.5, 1.5, 0.0], [True, True, True])
    """
    check_floating(queries=queries, targets=targets)
    check_rank(2, axes="[n, d]", queries=queries, targets=targets)
    if ties not in get_args(Ties):
        raise ValueError(f"ties must be one of {list(get_args(Ties))}, got {ties!r}")
    if block_size < 1:
        raise ValueError(f"block_size must be positive, got {block_size}")
    n, m = queries.shape[0], targets.shape[0]
    query_ids, target_ids = _ids(
        n, m, positives=positives, query_ids=query_ids, target_ids=target_ids
    )
    asked = _presence(query_presence, n, name="query_presence")
    there = _presence(target_presence, m, name="target_presence")
    queries = jnp.where(asked[:, None], queries, 0)
    targets = jnp.where(there[:, None], targets, 0)
    weight = {"optimistic": 0.0, "expected": 0.5, "pessimistic": 1.0}[ties]

    def block(rows: tuple[Array, Array]) -> tuple[Array, Array]:
        scores = pairwise_dot_product(rows[0], targets)
        # A NaN would compare as False everywhere and make its query look perfect.
        scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
        own = (rows[1][:, None] == target_ids[None, :]) & there[None, :]
        best = jnp.max(scores, axis=1, where=own, initial=-jnp.inf)[:, None]
        other = ~own & there[None, :]
        above = jnp.sum(other & (scores > best), axis=1, dtype=jnp.float32)
        level = jnp.sum(other & (scores == best), axis=1, dtype=jnp.float32)
        return above + weight * level, jnp.any(own, axis=1)

    found, matched = _in_blocks(block, queries, query_ids, size=min(block_size, max(n, 1)))
    counted = matched & asked
    return jnp.where(counted, found, 0), counted


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
    return masked_mean((ranks < k).astype(jnp.float32), where=where)


def mean_rank(ranks: Float[Array, " n"], *, where: Array | None = None) -> Float[Array, ""]:
    """Mean 1-based rank of the counted queries; 0 if none counts.

    Example:
      >>> mean_rank(jnp.array([0.0, 3.0]))
      Array(2.5, dtype=float32)
    """
    return jnp.where(_any(ranks, where), masked_mean(ranks, where=where) + 1, 0)


def median_rank(ranks: Float[Array, " n"], *, where: Array | None = None) -> Float[Array, ""]:
    """Median 1-based rank of the counted queries; 0 if none counts.

    Of an even number it is the mean of the middle two (open_clip rounds it down).

    Example:
      >>> median_rank(jnp.array([0.0, 3.0, 9.0]))
      Array(4., dtype=float32)
    """
    keep = broadcast_mask(where, shape=ranks.shape, name="where")
    ordered = jnp.sort(jnp.where(keep, ranks, jnp.inf))
    count = jnp.sum(keep)
    middle = jnp.stack([jnp.maximum(count - 1, 0) // 2, count // 2])
    return jnp.where(count > 0, jnp.mean(ordered[middle]) + 1, 0)


def mean_reciprocal_rank(
    ranks: Float[Array, " n"], *, where: Array | None = None
) -> Float[Array, ""]:
    r"""Mean of $1 / (r + 1)$ over the counted queries, in [0, 1]; 0 if none counts.

    Example:
      >>> mean_reciprocal_rank(jnp.array([0.0, 3.0]))
      Array(0.625, dtype=float32)
    """
    return masked_mean(1 / (ranks + 1), where=where)


def _in_blocks(block: Callable, queries: Array, ids: Array, *, size: int) -> tuple[Array, Array]:
    """`block` over rows, `size` at a time; the last block is filled with zeros and cut again."""
    n = queries.shape[0]
    count = -(-n // size)
    fill = count * size - n
    rows = jnp.pad(queries, ((0, fill), (0, 0))).reshape(count, size, -1)
    labels = jnp.pad(ids, (0, fill)).reshape(count, size)
    found, matched = jax.lax.map(block, (rows, labels))
    return found.reshape(-1)[:n], matched.reshape(-1)[:n]


def _ids(
    n: int, m: int, *, positives: Array | None, query_ids: Array | None, target_ids: Array | None
) -> tuple[Array, Array]:
    if positives is not None and (query_ids is not None or target_ids is not None):
        raise ValueError("give positives or ids, got both")
    if positives is not None:
        query_ids, target_ids = positives, jnp.arange(m, dtype=positives.dtype)
    if query_ids is None:
        if target_ids is not None:
            raise ValueError("target_ids need query_ids, got None")
        query_ids = jnp.arange(n)
    if target_ids is None:
        if n != m:
            raise ValueError(f"{n} queries and {m} targets need positives or target_ids, got None")
        target_ids = query_ids
    name = "query_ids" if positives is None else "positives"
    for key, ids, size in ((name, query_ids, n), ("target_ids", target_ids, m)):
        if not jnp.issubdtype(ids.dtype, jnp.integer):
            raise TypeError(f"{key} must be integers, got {ids.dtype}")
        if ids.shape != (size,):
            raise ValueError(f"{key} must have shape {(size,)}, got {ids.shape}")
    return query_ids, target_ids


def _presence(mask: Array | None, size: int, *, name: str) -> Array:
    if mask is not None:
        check_mask(mask, shape=(size,), name=name)
    return broadcast_mask(mask, shape=(size,), name=name)


def _any(ranks: Array, where: Array | None) -> Array:
    return jnp.any(broadcast_mask(where, shape=ranks.shape, name="where"))
