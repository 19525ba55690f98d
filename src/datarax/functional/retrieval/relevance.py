"""Which target answers which query: ids, presence, and blocks of queries."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from datarax.functional.checks import check_floating, check_mask, check_rank
from datarax.functional.similarity import pairwise_dot_product


class Matching(NamedTuple):
    """Queries and targets as given, their ids, and which of them there are; `None`: all."""

    queries: Array
    targets: Array
    query_ids: Array
    target_ids: Array
    asked: Array | None
    there: Array | None


def matching(
    queries: Array,
    targets: Array,
    *,
    positives: Array | None,
    query_ids: Array | None,
    target_ids: Array | None,
    query_presence: Array | None,
    target_presence: Array | None,
) -> Matching:
    """Checked; see `functional.ranks` for the arguments. Absent rows are left as they are.

    Raises:
      TypeError: if embeddings are not floating point, ids not integers or masks not boolean.
      ValueError: if shapes do not fit, or ids are missing or given twice.

    Example:
      >>> x = jnp.eye(2)
      >>> options = dict.fromkeys(("positives", "query_ids", "target_ids"))
      >>> options |= dict.fromkeys(("query_presence", "target_presence"))
      >>> matching(x, x, **options).target_ids.tolist()
      [0, 1]
    """
    check_floating(queries=queries, targets=targets)
    check_rank(2, axes="[n, d]", queries=queries, targets=targets)
    n, m = queries.shape[0], targets.shape[0]
    query_ids, target_ids = _ids(
        n, m, positives=positives, query_ids=query_ids, target_ids=target_ids
    )
    for name, mask, size in (
        ("query_presence", query_presence, n),
        ("target_presence", target_presence, m),
    ):
        if mask is not None:
            check_mask(mask, shape=(size,), name=name)
    return Matching(queries, targets, query_ids, target_ids, query_presence, target_presence)


class Positives(NamedTuple):
    """The targets of query i: `order[first[i] + k]` for k < `count[i]`, ascending."""

    order: Array
    first: Array
    count: Array


def positives_of(pairs: Matching) -> Positives:
    """The present targets that share the id of each query that is present.

    Example:
      >>> ids = jnp.array([7, 5, 7])
      >>> positives_of(Matching(jnp.eye(3), jnp.eye(3), ids, ids, None, None)).count.tolist()
      [2, 1, 2]
    """
    labels, there, m = pairs.target_ids, pairs.there, len(pairs.targets)
    absent = jnp.zeros(m, bool) if there is None else ~there
    labels = jnp.where(absent, jnp.iinfo(labels.dtype).max, labels)
    order = jnp.lexsort((absent, labels))
    low = jnp.searchsorted(labels[order], pairs.query_ids, side="left")
    high = jnp.searchsorted(labels[order], pairs.query_ids, side="right")
    high = jnp.minimum(high, jnp.sum(~absent, dtype=high.dtype))
    count = jnp.maximum(high - low, 0)
    if pairs.asked is not None:
        count = jnp.where(pairs.asked, count, 0)
    return Positives(order.astype(jnp.int32), low.astype(jnp.int32), count.astype(jnp.int32))


def block_rows(
    n: int, m: int, *, block_size: int | None, most: int = 512, held: int = 20 * 2**20
) -> int:
    """How many rows of scores [n, m] are held at a time.

    Args:
      n, m: of the whole matrix.
      block_size: the number asked for; `None` takes what is chosen.
      most: the most rows that are chosen.
      held: the most scores that are chosen: 80 MiB of float32.

    Returns:
      At least 1; at most `n` where there are rows.

    Raises:
      ValueError: if `block_size` is not positive.

    Example:
      >>> block_rows(100_000, 100_000, block_size=None)
      192
    """
    if block_size is None:
        fitting = min(max(held // max(m, 1), 1), most)
        block_size = fitting // 32 * 32 or fitting
    if block_size < 1:
        raise ValueError(f"block_size must be positive, got {block_size}")
    return min(block_size, max(n, 1))


def in_blocks(
    judge: Callable[[Array, Array, Array | None], tuple], pairs: Matching, *, block_size: int | None
) -> tuple:
    """`judge(scores, relevant, there)` for blocks of queries, its results joined along rows.

    A score of NaN is given to `judge` as -inf: it would compare as False everywhere and make its
    query look perfect. Scores of absent rows may be anything.

    Raises:
      ValueError: if `block_size` is not positive.

    Example:
      >>> x, ids = jnp.eye(3), jnp.arange(3)
      >>> pairs = Matching(x, x, ids, ids, None, None)
      >>> in_blocks(lambda scores, own, there: (scores.max(axis=1),), pairs, block_size=2)[0]
      Array([1., 1., 1.], dtype=float32)
    """
    n = len(pairs.queries)
    size = block_rows(n, len(pairs.targets), block_size=block_size, most=256, held=10 * 2**20)
    count = max(-(-n // size), 1)  # a block of filling where there are no queries
    fill = count * size - n
    rows = jnp.pad(pairs.queries, ((0, fill), (0, 0)))
    rows = rows.reshape(count, size, pairs.queries.shape[1])
    labels = jnp.pad(pairs.query_ids, (0, fill)).reshape(count, size)

    def block(part: tuple[Array, Array]) -> tuple:
        scores = pairwise_dot_product(part[0], pairs.targets)
        scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
        relevant = part[1][:, None] == pairs.target_ids[None, :]
        if pairs.there is not None:
            relevant = relevant & pairs.there[None, :]
        return judge(scores, relevant, pairs.there)

    found = jax.lax.map(block, (rows, labels))
    return tuple(x.reshape(count * size, *x.shape[2:])[:n] for x in found)


def _ids(
    n: int, m: int, *, positives: Array | None, query_ids: Array | None, target_ids: Array | None
) -> tuple[Array, Array]:
    if positives is not None and (query_ids is not None or target_ids is not None):
        raise ValueError("give positives or ids, got both")
    if positives is not None:
        if jnp.issubdtype(positives.dtype, jnp.integer) and positives.dtype.itemsize < 4:
            positives = positives.astype(jnp.int32)  # of 8 bits the 256th index would be 0 again
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
