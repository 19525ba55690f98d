"""Ranks against a loop, ties, duplicates, presence, and that n x m is never held."""

import functools
import inspect
from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datarax import functional
from datarax.functional import ranks


def scores_as_integers(n=23, m=23, seed=0):
    """Small integers: products are exact, so ties are real."""
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.integers(-2, 3, size=(size, 3)), jnp.float32) for size in (n, m)]


def share_of_ties(ties, wrong, right):
    """How many of the others with the score of the best positives come before the first of them."""
    if ties == "lowest_index":
        return sum(j < min(right) for j in wrong)
    return {"optimistic": 0, "pessimistic": len(wrong), "expected": len(wrong) / (len(right) + 1)}[
        ties
    ]


def loop(queries, targets, query_ids, target_ids, queried, there, ties):
    found, counted = np.zeros(len(queries)), np.zeros(len(queries), bool)
    for i in range(len(queries)):
        scores = {j: float(queries[i] @ targets[j]) for j in range(len(targets)) if there[j]}
        own = [j for j in scores if target_ids[j] == query_ids[i]]
        if not own or not queried[i]:
            continue
        counted[i] = True
        best = max(scores[j] for j in own)
        others = [j for j in scores if j not in own]
        wrong = [j for j in others if scores[j] == best]
        right = [j for j in own if scores[j] == best]
        found[i] = sum(scores[j] > best for j in others) + share_of_ties(ties, wrong, right)
    return found, counted


@pytest.mark.parametrize("ties", ["optimistic", "expected", "pessimistic", "lowest_index"])
@pytest.mark.parametrize("block_size", [7, 256])
def test_matches_the_loop(ties, block_size):
    queries, targets = scores_as_integers(n=23, m=31)
    rng = np.random.default_rng(1)
    query_ids, target_ids = rng.integers(0, 12, 23), rng.integers(0, 12, 31)
    queried, there = rng.random(23) < 0.8, rng.random(31) < 0.8
    expected, counted = loop(
        np.asarray(queries), np.asarray(targets), query_ids, target_ids, queried, there, ties
    )
    got, mask = ranks(
        jnp.where(jnp.asarray(queried)[:, None], queries, jnp.nan),
        jnp.where(jnp.asarray(there)[:, None], targets, jnp.nan),
        query_ids=jnp.asarray(query_ids),
        target_ids=jnp.asarray(target_ids),
        query_presence=jnp.asarray(queried),
        target_presence=jnp.asarray(there),
        ties=ties,
        block_size=block_size,
    )
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    np.testing.assert_array_equal(mask, counted)


def test_a_collapsed_model_is_at_chance_not_perfect():
    x = jnp.ones((11, 4))
    assert (ranks(x, x)[0] == 5).all()
    assert (ranks(x, x, ties="pessimistic")[0] == 10).all()
    assert (ranks(x, x, ties="optimistic")[0] == 0).all()


def test_nan_scores_are_the_worst_not_the_best():
    x = jnp.eye(4).at[2].set(jnp.nan)
    found, _ = ranks(jnp.eye(4), x, ties="pessimistic")
    assert found[2] == 3


def test_positives_are_indices_of_targets():
    queries, targets = scores_as_integers(n=9, m=5)
    index = jnp.asarray([0, 4, 2, 2, 1, 3, 0, 4, 1])
    by_ids, _ = ranks(queries, targets, query_ids=index, target_ids=jnp.arange(5))
    np.testing.assert_array_equal(ranks(queries, targets, positives=index)[0], by_ids)


def test_duplicates_share_credit():
    x = jnp.asarray([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert ranks(x, x)[0].tolist() == [0.5, 0.5, 0.0]
    assert ranks(x, x, query_ids=jnp.asarray([5, 5, 6]))[0].tolist() == [0.0, 0.0, 0.0]


def test_equal_targets_tie_in_every_column_of_the_product():
    rng = np.random.default_rng(3)
    one = jnp.asarray(rng.normal(size=(1, 77)), jnp.float32)
    queries = jnp.asarray(rng.normal(size=(19, 77)), jnp.float32)
    targets = jnp.broadcast_to(one, (37, 77))
    found, _ = ranks(queries, targets, positives=jnp.arange(19))
    np.testing.assert_array_equal(found, 18)


@functools.cache
def orders(scores):
    """Every order in which equal scores may come."""
    best = sorted(scores, reverse=True)
    every = permutations(range(len(scores)))
    return [order for order in every if [scores[j] for j in order] == best]


def measures_of(order, relevant):
    """Of one order, by definition: recall, true recall, reciprocal rank, R-precision, mAP@R."""
    hits = np.array([relevant[j] for j in order])
    positives = [place for place, hit in enumerate(hits) if hit]
    total = len(positives)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    first = positives[0]
    return {
        "mean_rank": first + 1,
        "mrr": 1 / (first + 1),
        "recall_at_1": first < 1,
        "recall_at_2": first < 2,
        "true_recall_at_1": hits[:1].sum() / total,
        "true_recall_at_2": hits[:2].sum() / total,
        "r_precision": hits[:total].sum() / total,
        "map_at_r": (precision * hits)[:total].sum() / total,
    }


@pytest.mark.parametrize(
    "seed", [1, pytest.param(0, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("ties", ["expected", "lowest_index", "optimistic", "pessimistic"])
def test_measures_are_those_of_all_orders_of_equal_scores(seed, ties):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, (5, 6)).astype(np.float32)
    ids = rng.integers(0, 2, 6)
    asked = np.array([0, 1, 0, 1, 7])
    measured = {}
    for row, own in zip(scores[:4], asked[:4], strict=True):
        relevant = (ids == own).tolist()
        possible = orders(tuple(row.tolist()))
        if ties == "lowest_index":
            possible = [tuple(np.argsort(-row, kind="stable"))]
        values = [measures_of(order, relevant) for order in possible]
        pick = {"optimistic": max, "pessimistic": min}.get(ties, np.mean)
        for name in values[0]:
            chosen = pick if name != "mean_rank" or pick is np.mean else {max: min, min: max}[pick]
            measured.setdefault(name, []).append(chosen([v[name] for v in values]))
    found = jax.jit(
        functools.partial(functional.retrieval_metrics, ks=(1, 2), ties=ties, block_size=2)
    )(
        jnp.asarray(scores),
        jnp.eye(6),
        query_ids=jnp.asarray(asked),
        target_ids=jnp.asarray(ids),
    )
    for name, values in measured.items():
        np.testing.assert_allclose(found[name], np.mean(values), rtol=1e-5, err_msg=name)


def test_the_sum_of_recalls_is_that_of_a_sort():
    rng = np.random.default_rng(5)
    scores = rng.normal(size=(30, 30)) + np.eye(30)
    places = [
        np.argmax(np.argsort(-x, axis=1) == np.arange(30)[:, None], axis=1)
        for x in (scores, scores.T)
    ]
    expected = 100 * sum(np.mean(place < k) for place in places for k in (1, 5, 10))
    eye, table = jnp.eye(30), jnp.asarray(scores, jnp.float32)
    both = [functional.retrieval_metrics(x, eye) for x in (table, table.T)]
    np.testing.assert_allclose(functional.recall_sum(*both), expected, rtol=1e-5)
    assert 0 < expected < 600
    with pytest.raises(ValueError, match="each direction needs a recall_at_k"):
        functional.recall_sum(both[0], {"mrr": both[0]["mrr"]})
    with pytest.raises(ValueError, match="each direction needs"):
        functional.recall_sum()


def test_absent_targets_are_not_ranked_even_below_minus_infinity():
    scores = jnp.asarray([[-jnp.inf, -jnp.inf, -jnp.inf]])
    relevant, there = jnp.asarray([[False, True, False]]), jnp.asarray([False, True, True])
    ranked = functional.ranked_relevance(scores, relevant, there=there)
    assert ranked.relevance.tolist() == [[0.5, 0.5, 0.0]]
    found = functional.contest(scores, relevant, there=there)
    assert [int(x[0]) for x in found] == [0, 1, 1, 0, 1]


def test_the_whole_matrix_is_never_held():
    n, size = 4096, 64
    x = jax.ShapeDtypeStruct((n, 8), jnp.float32)
    compiled = jax.jit(lambda q, t: ranks(q, t, block_size=size)).lower(x, x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < n * n


def test_statistics_of_ranks():
    found, where = jnp.asarray([0.0, 3.0, 9.0, 4.0, 77.0]), jnp.asarray([1, 1, 1, 1, 0], bool)
    recall = functional.recall_at_k
    np.testing.assert_allclose(recall(found, k=4, where=where), 0.5)
    np.testing.assert_allclose(recall(found, k=10), 0.8)
    np.testing.assert_allclose(functional.mean_rank(found, where=where), 5)
    np.testing.assert_allclose(functional.median_rank(found, where=where), 4.5)
    np.testing.assert_allclose(functional.median_rank(found), 5)
    np.testing.assert_allclose(functional.median_rank(found, where=where, floor=True), 4)
    np.testing.assert_allclose(
        functional.mean_reciprocal_rank(found, where=where), (1 + 1 / 4 + 1 / 10 + 1 / 5) / 4
    )


def test_statistics_of_nothing_are_zero():
    found, none = jnp.zeros(3), jnp.zeros(3, bool)
    for statistic in (
        functional.mean_rank,
        functional.median_rank,
        functional.mean_reciprocal_rank,
    ):
        assert statistic(found, where=none) == 0
    assert functional.recall_at_k(found, k=1, where=none) == 0


def test_without_queries_everything_is_zero():
    none, some = jnp.zeros((0, 2)), jnp.ones((3, 2))
    indices = jnp.zeros(0, jnp.int32)
    found, counted = ranks(none, some, positives=indices)
    assert found.shape == counted.shape == (0,)
    assert not any(functional.retrieval_metrics(none, some, positives=indices).values())
    assert functional.median_rank(found) == 0


def test_indices_of_few_bits_do_not_wrap_around():
    queries, targets = jnp.ones((1, 2)), jnp.ones((257, 2)).at[0].set(0)
    for dtype in (jnp.uint8, jnp.int8):
        found, _ = ranks(queries, targets, positives=jnp.zeros(1, dtype), ties="pessimistic")
        assert found[0] == 256


Q, I = jnp.ones((3, 2)), jnp.arange(3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"targets": Q[:2]}, ValueError, "3 queries and 2 targets need positives or target_ids"),
        ({"targets": Q[:, :1]}, ValueError, "one width"),
        (
            {"queries": jnp.ones((3, 2), int)},
            TypeError,
            "queries must be floating point, got int32",
        ),
        ({"positives": I, "query_ids": I}, ValueError, "give positives or ids, got both"),
        ({"target_ids": I}, ValueError, "target_ids need query_ids"),
        ({"query_ids": I[:2]}, ValueError, r"query_ids must have shape \(3,\), got \(2,\)"),
        ({"positives": I * 1.0}, TypeError, "positives must be integers, got float32"),
        ({"query_presence": I}, TypeError, "query_presence must be boolean"),
        ({"target_presence": I[:2] > 0}, ValueError, r"target_presence must have shape \(3,\)"),
        ({"ties": "random"}, ValueError, r"ties must be one of \['expected', 'lowest"),
        ({"block_size": 0}, ValueError, "block_size must be positive, got 0"),
    ],
)
def test_refuses(options, error, message):
    arguments = {"queries": Q, "targets": Q} | options
    with pytest.raises(error, match=message):
        inspect.unwrap(ranks)(arguments.pop("queries"), arguments.pop("targets"), **arguments)


def test_recall_needs_a_positive_k():
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        functional.recall_at_k(jnp.zeros(3), k=0)
    found = functional.contest(jnp.eye(2), jnp.eye(2) > 0)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        functional.hit_probability(found, k=0)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        functional.true_recall_at_k(functional.ranked_relevance(jnp.eye(2), jnp.eye(2) > 0), k=0)
    with pytest.raises(ValueError, match="ties must be one of"):
        inspect.unwrap(functional.ranked_relevance)(jnp.eye(2), jnp.eye(2) > 0, ties="random")
