"""How far down its ranking a query finds what belongs to it, with ties counted honestly."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from datarax.functional.checks import broadcast_mask
from datarax.functional.retrieval.counting import Contest, count_both, count_rows
from datarax.functional.retrieval.relevance import matching

Ties = Literal["expected", "lowest_index", "optimistic", "pessimistic"]


def contest(
    scores: Num[Array, "n m"], relevant: Bool[Array, "n m"], *, there: Array | None = None
) -> Contest:
    """The contest of each query, from a matrix of scores.

    Args:
      scores: higher is better. A NaN is below all others.
      relevant: which targets are positives of which query.
      there: bool [m], the targets that there are; others are neither positives nor in the way.

    Returns:
      A `Contest`, from which ranks and probabilities follow.

    Raises:
      TypeError: if `there` is not boolean.
      ValueError: if `there` does not fit.

    Example:
      >>> found = contest(jnp.array([[2.0, 2.0, 3.0]]), jnp.array([[False, True, False]]))
      >>> [int(x[0]) for x in found]
      [1, 1, 1, 1, 1]
    """
    present = broadcast_mask(there, shape=scores.shape[1:], name="there")[None, :]
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    own, other = relevant & present, ~relevant & present
    best = jnp.max(scores, axis=1, where=own, initial=-jnp.inf)[:, None]
    counted = jnp.any(own, axis=1)
    level = scores == best
    behind = jnp.cumsum(level & own, axis=1, dtype=jnp.int32) > 0
    above, wrong, right, before = (
        jnp.sum(jnp.where(counted[:, None], chosen, False), axis=1, dtype=jnp.int32)
        for chosen in (other & (scores > best), other & level, own & level, other & level & ~behind)
    )
    return Contest(above, wrong, right, before, counted)


def contests(
    queries: Num[Array, "n d"],
    targets: Num[Array, "m e"],
    *,
    positives: Array | None = None,
    query_ids: Array | None = None,
    target_ids: Array | None = None,
    query_presence: Array | None = None,
    target_presence: Array | None = None,
    block_size: int | None = None,
) -> Contest:
    """`contest` of the dot products of embeddings, a block of queries at a time.

    Args:
      queries, targets: as in `ranks`, and so are the other arguments.

    Returns:
      A `Contest`.

    Raises:
      TypeError: as `ranks`.
      ValueError: as `ranks`.

    Example:
      >>> contests(jnp.eye(2), jnp.ones((2, 2))).wrong.tolist()
      [1, 1]
    """
    pairs = matching(
        queries,
        targets,
        positives=positives,
        query_ids=query_ids,
        target_ids=target_ids,
        query_presence=query_presence,
        target_presence=target_presence,
    )
    return count_rows(pairs, block_size=block_size)


def check_ties(ties: str) -> None:
    """Raise unless it is a way to count ties.

    Raises:
      ValueError: listing the choices.

    Example:
      >>> check_ties("expected")
    """
    if ties not in get_args(Ties):
        raise ValueError(f"ties must be one of {list(get_args(Ties))}, got {ties!r}")


def rank_of(contest: Contest, *, ties: Ties = "expected") -> Float[Array, " n"]:
    r"""The 0-based rank of each query's best positive among the targets that are not positives.

    With `a` others above, and `w` others and `r` positives level with it: $a + w / (r + 1)$ if ties
    are `"expected"`, the exact mean over all orders of equal scores; $a$ if `"optimistic"`; $a + w$
    if `"pessimistic"`; $a$ plus those of a lower index if `"lowest_index"` (a stable sort, as
    open_clip's).

    Args:
      contest: from `contest` or `contests`.
      ties: as above. A model that gives all targets one score has the expected rank of chance, and
        the optimistic rank of a perfect model.

    Returns:
      Ranks [n], float32 (float64 under `jax.enable_x64`) in [0, m); 0 where not counted.

    Raises:
      ValueError: if the choice is unknown.

    Example:
      >>> tied = contest(jnp.ones((1, 4)), jnp.array([[False, True, False, True]]))
      >>> [float(rank_of(tied, ties=t)[0]) for t in ("expected", "lowest_index", "pessimistic")]
      [0.6666666865348816, 1.0, 2.0]
    """
    check_ties(ties)
    above, wrong, right, before, counted = contest
    dtype = jax.dtypes.canonicalize_dtype(float)
    share = {
        "expected": wrong.astype(dtype) / (right + 1).astype(dtype),
        "lowest_index": before.astype(dtype),
        "optimistic": jnp.zeros(wrong.shape, dtype),
        "pessimistic": wrong.astype(dtype),
    }[ties]
    return jnp.where(counted, above.astype(dtype) + share, 0)


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
    block_size: int | None = None,
) -> tuple[Float[Array, " n"], Bool[Array, " n"]]:
    r"""0-based rank of each query's best positive among the targets that are not its positives,

    by the dot products of embeddings. Several positives share credit: the best-ranked one counts
    (any-hit), the others neither help nor stand in its way.

    Args:
      queries, targets: embeddings of one width. Not normalised here.
      positives: integers [n], the index of each query's one positive.
      query_ids, target_ids: integers [n] and [m]; a target is a positive of the queries that share
        its id. `target_ids` defaults to `query_ids` if n == m. Without ids and `positives`, target
        `i` is the positive of query `i`.
      query_presence, target_presence: bool [n] and [m]. An absent target is neither positive nor
        competitor; absent rows may hold NaN.
      ties: see `rank_of`.
      block_size: the number of queries whose scores are held at a time; `None`: what 40 MiB hold.

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
    check_ties(ties)
    found = contests(
        queries,
        targets,
        positives=positives,
        query_ids=query_ids,
        target_ids=target_ids,
        query_presence=query_presence,
        target_presence=target_presence,
        block_size=block_size,
    )
    return rank_of(found, ties=ties), found.counted


def two_way_contests(
    queries: Num[Array, "n d"],
    targets: Num[Array, "m e"],
    *,
    positives: Array | None = None,
    query_ids: Array | None = None,
    target_ids: Array | None = None,
    query_presence: Array | None = None,
    target_presence: Array | None = None,
    block_size: int | None = None,
) -> tuple[Contest, Contest]:
    """The contests of both directions, from one product of blocks.

    Args:
      queries, targets: as in `ranks`, and so are the other arguments. Each query is a positive of
        the targets that are its positives.

    Returns:
      The `Contest` [n] of the queries among the targets, and that [m] of the targets among the
      queries. The latter takes a second pass where the device rounds small products otherwise
      than large ones, which is found out in the first.

    Raises:
      TypeError: as `ranks`.
      ValueError: as `ranks`.

    Example:
      >>> there, back = two_way_contests(jnp.eye(2), jnp.array([[1.0, 1.0], [0.0, 1.0]]))
      >>> there.wrong.tolist(), back.wrong.tolist()
      ([0, 1], [1, 0])
    """
    pairs = matching(
        queries,
        targets,
        positives=positives,
        query_ids=query_ids,
        target_ids=target_ids,
        query_presence=query_presence,
        target_presence=target_presence,
    )
    return count_both(pairs, block_size=block_size)


def hit_probability(contest: Contest, *, k: int) -> Float[Array, " n"]:
    r"""The probability that a positive is among the first `k` if equal scores are in random order:

    $1 - \binom{w}{s} / \binom{w + r}{s}$ for the $s = k - a$ places left after the `a` above.

    Args:
      contest: from `contest` or `contests`.
      k: how many results are looked at, at least 1.

    Returns:
      [n], float32 (float64 under `jax.enable_x64`), in [0, 1]; 0 where not counted. Its mean over
      the counted is the expected any-hit recall.

    Raises:
      ValueError: if `k < 1`.

    Example:
      >>> tied = contest(jnp.ones((1, 4)), jnp.array([[False, True, False, True]]))
      >>> hit_probability(tied, k=2).round(4).tolist()
      [0.833299994468689]
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    dtype = jax.dtypes.canonicalize_dtype(float)
    above, wrong, right = (x.astype(dtype) for x in contest[:3])

    def place(i: Array, miss: Array) -> Array:
        at = i.astype(dtype)
        share = jnp.maximum(wrong - at, 0) / jnp.maximum(wrong + right - at, 1)
        return jnp.where(at < k - above, miss * share, miss)

    miss = jax.lax.fori_loop(jnp.int32(0), jnp.int32(k), place, jnp.ones(above.shape, dtype))
    return jnp.where(contest.counted, 1 - miss, 0)


def expected_reciprocal_rank(contest: Contest) -> Float[Array, " n"]:
    r"""The mean of $1 / (\text{rank} + 1)$ over all orders of equal scores, of the first positive.

    Not the same as the reciprocal of the expected rank, which is smaller.

    Args:
      contest: from `contest` or `contests`.

    Returns:
      [n], float32 (float64 under `jax.enable_x64`), in [0, 1]; 0 where not counted.

    Example:
      >>> tied = contest(jnp.ones((1, 2)), jnp.array([[False, True]]))
      >>> expected_reciprocal_rank(tied).tolist()
      [0.75]
    """
    dtype = jax.dtypes.canonicalize_dtype(float)
    above, wrong, right = (x.astype(dtype) for x in contest[:3])

    def place(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        total, miss = state
        at = i.astype(dtype)
        left = jnp.maximum(wrong + right - at, 1)
        total = total + miss * right / left / (above + at + 1)
        return total, miss * jnp.maximum(wrong - at, 0) / left

    most = jnp.max(contest.wrong, initial=0) + 1
    start = (jnp.zeros(above.shape, dtype), jnp.ones(above.shape, dtype))
    total, _ = jax.lax.fori_loop(jnp.int32(0), most, place, start)
    return jnp.where(contest.counted, total, 0)
