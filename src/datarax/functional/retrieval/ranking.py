"""Measures of the whole ranking of a query with several positives, with ties counted honestly."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from datarax.functional.checks import accumulation_dtype, broadcast_mask
from datarax.functional.masking import masked_mean
from datarax.functional.retrieval.counting import Contest, count_rows
from datarax.functional.retrieval.rank_statistics import (
    mean_rank,
    mean_reciprocal_rank,
    median_rank,
    recall_at_k,
)
from datarax.functional.retrieval.ranks import (
    Ties,
    check_ties,
    expected_reciprocal_rank,
    hit_probability,
    rank_of,
)
from datarax.functional.retrieval.relevance import Matching, in_blocks, matching, positives_of


class RankedRelevance(NamedTuple):
    """The ranking of each query, best first.

    Attributes:
      relevance: [n, m], how much of a positive is at each place: 0 or 1, and the probability that
        it is one where ties are `"expected"`.
      precision: [n, m], the precision up to the place where a positive is there, 0 elsewhere; its
        expectation where ties are `"expected"`.
      total: [n], how many positives each query has.
    """

    relevance: Float[Array, "n m"]
    precision: Float[Array, "n m"]
    total: Int[Array, " n"]


def ranked_relevance(
    scores: Num[Array, "n m"],
    relevant: Bool[Array, "n m"],
    *,
    there: Array | None = None,
    ties: Ties = "expected",
) -> RankedRelevance:
    r"""Which places of each query's ranking hold a positive.

    Of a group of `T` equal scores with `R` positives, `A` of them ranked before the group, a place
    `k` (from 1) after `p` others of its group holds a positive with probability $R / T$ in a random
    order, and then has the expected precision $(A + 1 + p (R - 1) / (T - 1)) / k$.

    Args:
      scores: higher is better. A NaN is below all others.
      relevant: which targets are positives of which query.
      there: bool [m], the targets that there are; others come last and are no positives.
      ties: `"expected"` as above; `"lowest_index"` a stable sort; `"optimistic"` positives first;
        `"pessimistic"` positives last.

    Returns:
      A `RankedRelevance`, from which recall and average precision follow.

    Raises:
      TypeError: if `there` is not boolean.
      ValueError: if `there` does not fit, or the choice is unknown.

    Example:
      >>> found = ranked_relevance(jnp.array([[1.0, 2.0, 1.0]]), jnp.array([[True, False, False]]))
      >>> found.relevance.tolist()
      [[0.0, 0.5, 0.5]]
    """
    check_ties(ties)
    present = broadcast_mask(there, shape=scores.shape[1:], name="there")[None, :]
    own = relevant & present
    scores = jnp.where(jnp.isnan(scores) | ~present, -jnp.inf, scores)
    second = jnp.zeros(own.shape, jnp.int32)
    if ties in ("optimistic", "pessimistic"):
        second = jnp.where(own, 0, 1) if ties == "optimistic" else jnp.where(own, 1, 0)
    order = jnp.lexsort((second, -scores, jnp.broadcast_to(~present, own.shape)), axis=-1)
    placed = jnp.take_along_axis(own, order, axis=1)
    hits, relevance = _expected(
        jnp.take_along_axis(scores, order, axis=1),
        placed,
        jnp.take_along_axis(jnp.broadcast_to(present, own.shape), order, axis=1),
    )
    dtype = accumulation_dtype(scores)
    if ties != "expected":
        relevance = placed.astype(dtype)
        hits = jnp.cumsum(relevance, axis=1)
    places = jnp.arange(1, scores.shape[1] + 1, dtype=dtype)[None, :]
    total = jnp.sum(own, axis=1, dtype=jnp.int32)
    return RankedRelevance(relevance, relevance * hits / places, total)


def true_recall_at_k(ranked: RankedRelevance, *, k: int) -> Float[Array, " n"]:
    """The share of each query's positives that is among the first `k` results.

    Args:
      ranked: from `ranked_relevance`.
      k: how many results are looked at, at least 1.

    Returns:
      [n], at least float32, in [0, 1]; 0 without positives. With more than `k` positives it cannot
      be 1: `recall_at_k` asks for one of them only.

    Raises:
      ValueError: if `k < 1`.

    Example:
      >>> scores, relevant = jnp.array([[3.0, 2.0, 1.0]]), jnp.array([[True, False, True]])
      >>> true_recall_at_k(ranked_relevance(scores, relevant), k=2).tolist()
      [0.5]
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return _share(jnp.sum(ranked.relevance[:, :k], axis=1), ranked.total)


def r_precision(ranked: RankedRelevance) -> Float[Array, " n"]:
    """The share of positives among the first `R` results of a query with `R` positives.

    Args:
      ranked: from `ranked_relevance`.

    Returns:
      [n], at least float32, in [0, 1]; 0 without positives.

    Example:
      >>> scores, relevant = jnp.array([[3.0, 2.0, 1.0]]), jnp.array([[True, False, True]])
      >>> r_precision(ranked_relevance(scores, relevant)).tolist()
      [0.5]
    """
    return _share(jnp.sum(_first_r(ranked, ranked.relevance), axis=1), ranked.total)


def average_precision_at_r(ranked: RankedRelevance) -> Float[Array, " n"]:
    r"""$\frac1R \sum_{k=1}^{R} P(k)\, rel(k)$ of a query with `R` positives: its mean is mAP@R.

    Args:
      ranked: from `ranked_relevance`.

    Returns:
      [n], at least float32, in [0, 1]; 0 without positives.

    Reference: Musgrave et al., 2020, arXiv:2003.08505, equation 2.

    Example:
      >>> scores, relevant = jnp.array([[3.0, 2.0, 1.0]]), jnp.array([[True, False, True]])
      >>> average_precision_at_r(ranked_relevance(scores, relevant)).tolist()
      [0.5]
    """
    return _share(jnp.sum(_first_r(ranked, ranked.precision), axis=1), ranked.total)


def retrieval_metrics(
    queries: Num[Array, "n d"],
    targets: Num[Array, "m e"],
    *,
    positives: Array | None = None,
    query_ids: Array | None = None,
    target_ids: Array | None = None,
    query_presence: Array | None = None,
    target_presence: Array | None = None,
    ks: Sequence[int] = (1, 5, 10),
    ties: Ties = "expected",
    block_size: int | None = None,
) -> dict[str, Float[Array, ""]]:
    """Every measure of one direction of retrieval, the mean over the queries that count.

    `recall_at_k` (any-hit: one positive among the first `k`) and `true_recall_at_k` (the share of
    all positives) for each of `ks`, `mean_rank`, `median_rank` (from 1, of the best positive, the
    other positives left out), `mrr`, `r_precision` and `map_at_r`. With one positive a query the
    two recalls are equal.

    Args:
      queries, targets, positives, query_ids, target_ids, query_presence, target_presence,
        block_size: as in `functional.ranks`. Only where a query has several positives are scores
        sorted, in blocks of at most 256 rows if `None`.
      ks: how many results are looked at, each at least 1.
      ties: `"expected"` gives the exact means over all orders of equal scores (of the rank and of
        its reciprocal each by itself); others as in `rank_of` and `ranked_relevance`.

    Returns:
      Scalars by name; all 0 if no query counts.

    Raises:
      TypeError: as `functional.ranks`.
      ValueError: as `functional.ranks`, or if one of `ks` is not positive.

    Example:
      >>> found = retrieval_metrics(jnp.eye(3), jnp.eye(3), ks=[1])
      >>> float(found["recall_at_1"]), float(found["mean_rank"])
      (1.0, 1.0)
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
    check_ties(ties)
    found = count_rows(pairs, block_size=block_size)
    several = jnp.max(positives_of(pairs).count, initial=0) > 1
    whole = jax.lax.cond(
        several,
        lambda: _of_all(pairs, ks=ks, ties=ties, block_size=block_size),
        lambda: _of_only(found, ks=ks, ties=ties),
    )
    names = [*(f"true_recall_at_{k}" for k in ks), "r_precision", "map_at_r"]
    means = [masked_mean(x, where=found.counted) for x in whole]
    return _of_first(found, ks=ks, ties=ties) | dict(zip(names, means, strict=True))


def recall_sum(*directions: Mapping[str, Float[Array, ""]]) -> Float[Array, ""]:
    """rSum: the sum of every `recall_at_k` of some directions, in percent.

    With R@1, R@5 and R@10 of both directions it is in [0, 600], as image-text retrieval reports it.

    Args:
      directions: what `retrieval_metrics` gives, once for each direction.

    Raises:
      ValueError: if there is no recall in a direction.

    Reference: Lee et al., 2018, arXiv:1803.08024 (`rsum` of its code).

    Example:
      >>> both = [retrieval_metrics(jnp.eye(3), jnp.eye(3)) for _ in range(2)]
      >>> float(recall_sum(*both))
      600.0
    """
    recalls = [[x for k, x in one.items() if k.startswith("recall_at_")] for one in directions]
    if not recalls or not all(recalls):
        raise ValueError(
            f"each direction needs a recall_at_k, got {[sorted(one) for one in directions]}"
        )
    return 100 * jnp.sum(jnp.stack([x for one in recalls for x in one]))


def _of_all(
    pairs: Matching, *, ks: Sequence[int], ties: Ties, block_size: int | None
) -> tuple[Array, ...]:
    """True recalls, R-precision and mAP@R of each query, from its sorted scores."""

    def judge(scores: Array, relevant: Array, there: Array | None) -> tuple:
        ranked = ranked_relevance(scores, relevant, there=there, ties=ties)
        shares = [true_recall_at_k(ranked, k=k) for k in ks]
        whole = (*shares, r_precision(ranked), average_precision_at_r(ranked))
        return tuple(x.astype(jax.dtypes.canonicalize_dtype(float)) for x in whole)

    return in_blocks(judge, pairs, block_size=block_size)


def _of_only(found: Contest, *, ks: Sequence[int], ties: Ties) -> tuple[Array, ...]:
    """The same of queries with one positive each, for which a rank says it all: no sort."""
    if ties == "expected":
        hits = [hit_probability(found, k=k) for k in (*ks, 1)]
    else:
        rank = rank_of(found, ties=ties)
        hits = [((rank < k) & found.counted).astype(rank.dtype) for k in (*ks, 1)]
    return *hits, hits[-1]


def _of_first(found: Contest, *, ks: Sequence[int], ties: Ties) -> dict[str, Array]:
    where = found.counted
    ranks = rank_of(found, ties=ties)
    if ties == "expected":
        recalls = [masked_mean(hit_probability(found, k=k), where=where) for k in ks]
        reciprocal = masked_mean(expected_reciprocal_rank(found), where=where)
    else:
        recalls = [recall_at_k(ranks, k=k, where=where) for k in ks]
        reciprocal = mean_reciprocal_rank(ranks, where=where)
    return dict(zip((f"recall_at_{k}" for k in ks), recalls, strict=True)) | {
        "mean_rank": mean_rank(ranks, where=where),
        "median_rank": median_rank(ranks, where=where),
        "mrr": reciprocal,
    }


def _expected(scores: Array, placed: Array, present: Array) -> tuple[Array, Array]:
    """For each place the positives up to it if it holds one, and whether it does: expectations."""
    dtype = accumulation_dtype(scores)
    m = scores.shape[1]
    place = jnp.broadcast_to(jnp.arange(m, dtype=jnp.int32), scores.shape)
    alike = (scores[:, 1:] == scores[:, :-1]) & (present[:, 1:] == present[:, :-1])
    starts = jnp.pad(~alike, ((0, 0), (1, 0)), constant_values=True)[:, :m]
    first = jax.lax.cummax(jnp.where(starts, place, 0), axis=1)
    following = jnp.pad(jnp.where(starts, place, m)[:, 1:], ((0, 0), (0, 1)), constant_values=m)
    end = jax.lax.cummin(following[:, :m], axis=1, reverse=True)
    counts = jnp.pad(jnp.cumsum(placed, axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))
    before = jnp.take_along_axis(counts, first, axis=1)
    positives = (jnp.take_along_axis(counts, end, axis=1) - before).astype(dtype)
    size = (end - first).astype(dtype)
    others = (place - first).astype(dtype) * (positives - 1) / jnp.maximum(size - 1, 1)
    return before.astype(dtype) + 1 + others, positives / size


def _first_r(ranked: RankedRelevance, values: Array) -> Array:
    place = jnp.arange(values.shape[1], dtype=jnp.int32)
    return jnp.where(place[None, :] < ranked.total[:, None], values, 0)


def _share(found: Array, total: Array) -> Array:
    return found / jnp.maximum(total, 1).astype(found.dtype)
