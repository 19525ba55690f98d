"""Ranks against a loop, ties, duplicates, presence, and that n x m is never held."""

import inspect

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


def loop(queries, targets, query_ids, target_ids, queried, there, tie):
    found, counted = np.zeros(len(queries)), np.zeros(len(queries), bool)
    for i in range(len(queries)):
        scores = {j: float(queries[i] @ targets[j]) for j in range(len(targets)) if there[j]}
        own = [j for j in scores if target_ids[j] == query_ids[i]]
        if not own or not queried[i]:
            continue
        counted[i] = True
        best = max(scores[j] for j in own)
        others = [scores[j] for j in scores if j not in own]
        found[i] = sum(s > best for s in others) + tie * sum(s == best for s in others)
    return found, counted


@pytest.mark.parametrize(
    ("ties", "tie"), [("optimistic", 0.0), ("expected", 0.5), ("pessimistic", 1.0)]
)
@pytest.mark.parametrize("block_size", [1, 7, 23, 256])
def test_matches_the_loop(ties, tie, block_size):
    queries, targets = scores_as_integers(n=23, m=31)
    rng = np.random.default_rng(1)
    query_ids, target_ids = rng.integers(0, 12, 23), rng.integers(0, 12, 31)
    queried, there = rng.random(23) < 0.8, rng.random(31) < 0.8
    expected, counted = loop(
        np.asarray(queries), np.asarray(targets), query_ids, target_ids, queried, there, tie
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
    np.testing.assert_array_equal(got, expected)
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


Q, I = jnp.ones((3, 2)), jnp.arange(3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"targets": Q[:2]}, ValueError, "3 queries and 2 targets need positives or target_ids"),
        ({"targets": Q[:, :1]}, ValueError, "one width"),
        ({"queries": I}, TypeError, "queries must be floating point, got int32"),
        ({"positives": I, "query_ids": I}, ValueError, "give positives or ids, got both"),
        ({"target_ids": I}, ValueError, "target_ids need query_ids"),
        ({"query_ids": I[:2]}, ValueError, r"query_ids must have shape \(3,\), got \(2,\)"),
        ({"positives": I * 1.0}, TypeError, "positives must be integers, got float32"),
        ({"query_presence": I}, TypeError, "query_presence must be boolean"),
        ({"target_presence": I[:2] > 0}, ValueError, r"target_presence must have shape \(3,\)"),
        ({"ties": "random"}, ValueError, r"ties must be one of \['expected', 'optimistic'"),
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
