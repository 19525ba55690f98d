"""Counting in one pass: both directions against the dense matrix, ties, masks, ragged blocks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datarax import functional
from datarax.functional.retrieval import counting, two_way_contests
from datarax.functional.retrieval.relevance import Matching


def embeddings(n, m, *, seed=0, duplicates=False):
    """Small integers, whose products are exact, so ties are real; or normal rows with copies."""
    rng = np.random.default_rng(seed)
    if not duplicates:
        return [rng.integers(-2, 3, size=(size, 3)).astype(np.float32) for size in (n, m)]
    rows = [rng.normal(size=(size, 77)).astype(np.float32) for size in (n, m)]
    for x in rows:
        x[rng.integers(0, len(x), len(x) // 3)] = x[1]
    return rows


def dense(scores, relevant, asked, there):
    """One direction by a loop: above, wrong, right, before, counted."""
    found = []
    for row, own, is_asked in zip(scores, relevant, asked, strict=True):
        own = own & there
        if not own.any() or not is_asked:
            found.append((0, 0, 0, 0, False))
            continue
        best = row[own].max()
        level = (row == best) & there
        first = np.flatnonzero(level & own)[0]
        wrong = level & ~own
        above = ((row > best) & there & ~own).sum()
        found.append((above, wrong.sum(), (level & own).sum(), wrong[:first].sum(), True))
    return [np.asarray(x) for x in zip(*found, strict=True)]


def both_dense(queries, targets, query_ids, target_ids, asked, there):
    scores = queries.astype(np.float64) @ targets.astype(np.float64).T
    scores = np.where(np.isnan(scores), -np.inf, scores)
    relevant = query_ids[:, None] == target_ids[None, :]
    return (
        dense(scores, relevant, asked, there),
        dense(scores.T, relevant.T, there, asked),
    )


def check(found, expected):
    for name, x, y in zip(counting.Contest._fields, found, expected, strict=True):
        np.testing.assert_array_equal(x, y, err_msg=name)


@functools.partial(jax.jit, static_argnames="block_size")
def both(queries, targets, ids, masks, *, block_size):
    return two_way_contests(
        queries,
        targets,
        query_ids=ids[0],
        target_ids=ids[1],
        query_presence=masks[0],
        target_presence=masks[1],
        block_size=block_size,
    )


@functools.partial(jax.jit, static_argnames="block_size")
def one_way(queries, targets, ids, masks, *, block_size):
    return functional.contests(
        queries,
        targets,
        query_ids=ids[0],
        target_ids=ids[1],
        query_presence=masks[0],
        target_presence=masks[1],
        block_size=block_size,
    )


@pytest.mark.parametrize("block_size", [7, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_both_directions_are_those_of_the_matrix(block_size, seed):
    n, m = 23, 31
    rng = np.random.default_rng(seed)
    queries, targets = embeddings(n, m, seed=seed)
    ids = rng.integers(0, 12, n), rng.integers(0, 12, m)
    masks = rng.random(n) < 0.8, rng.random(m) < 0.8
    spoiled = [
        np.where(mask[:, None], x, np.nan)
        for x, mask in zip((queries, targets), masks, strict=True)
    ]
    found = both(*spoiled, ids, masks, block_size=block_size)
    for one, expected in zip(found, both_dense(queries, targets, *ids, *masks), strict=True):
        check(one, expected)
    many = one_way(*spoiled, ids, masks, block_size=block_size)
    check(many, found[0])


def test_nan_scores_that_are_there_are_the_worst_in_both_directions():
    queries, targets = embeddings(9, 9)
    queries[2], targets[5] = np.nan, np.nan
    every, ids = np.ones(9, bool), np.arange(9)
    found = both(queries, targets, (ids, ids), (every, every), block_size=4)
    for one, expected in zip(
        found, both_dense(queries, targets, ids, ids, every, every), strict=True
    ):
        check(one, expected)


def product(queries, targets):
    return functional.pairwise_dot_product(queries, targets)


@pytest.mark.parametrize(
    "kind",
    [
        "captions",
        pytest.param("one to one", marks=pytest.mark.slow),
        pytest.param("of no common id", marks=pytest.mark.slow),
    ],
)
def test_copies_tie_exactly_and_random_scores_count_as_the_product_has_them(kind):
    n, m = 150, 150 if kind == "one to one" else 60
    queries, targets = embeddings(n, m, duplicates=True)
    target_ids = np.arange(m) + (1000 if kind == "of no common id" else 0)
    query_ids = np.arange(n) % m
    ids, every = (query_ids, target_ids), (np.ones(n, bool), np.ones(m, bool))
    found = both(queries, targets, ids, every, block_size=64)
    scores = np.asarray(jax.jit(product)(queries, targets))
    relevant = query_ids[:, None] == target_ids[None, :]
    check(found[0], dense(scores, relevant, *every))
    back = dense(scores.T, relevant.T, *every[::-1])
    assert kind == "of no common id" or back[1].any()
    check(found[1], back)


def test_a_positive_that_rounds_otherwise_is_found_out(monkeypatch):
    """Were small products used as they come, a column would lose its ties or win them all."""
    queries, targets = embeddings(40, 40)
    exact = counting._best_in_advance

    def nudged(*arguments):
        best = exact(*arguments)
        return best._replace(score=best.score.at[3].multiply(1 + 2**-20).at[4].add(2**-20))

    monkeypatch.setattr(counting, "_best_in_advance", nudged)
    ids, every = np.arange(40), np.ones(40, bool)
    pairs = Matching(*(jnp.asarray(x) for x in (queries, targets, ids, ids)), None, None)
    found = jax.jit(lambda: counting.count_both(pairs, block_size=16))()
    expected = both_dense(queries, targets, ids, ids, every, every)
    check(found[0], expected[0])
    check(found[1], expected[1])


def test_counts_do_not_overflow_where_columns_are_many():
    m = 2**16 + 5
    counted = jax.jit(
        lambda targets, at: functional.contests(jnp.ones((1, 1)), targets, positives=at)
    )
    found = counted(jnp.ones((m, 1)), jnp.asarray([m - 1]))
    assert [int(x[0]) for x in found] == [0, m - 1, 1, m - 1, 1]
    found = counted(jnp.full((m, 1), 2.0).at[7].set(1.0), jnp.asarray([7]))
    assert [int(x[0]) for x in found] == [m - 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    "ties",
    [
        "expected",
        *(
            pytest.param(ties, marks=pytest.mark.slow)
            for ties in ("lowest_index", "optimistic", "pessimistic")
        ),
    ],
)
def test_measures_of_one_positive_need_no_sort(ties):
    queries, targets = (jnp.asarray(x) for x in embeddings(17, 17))

    @jax.jit
    def measures(q, t):
        found = functional.retrieval_metrics(q, t, ks=(1, 3), ties=ties)
        ranked = functional.ranked_relevance(q @ t.T, jnp.eye(17, dtype=bool), ties=ties)
        recalls = {k: functional.true_recall_at_k(ranked, k=k).mean() for k in (1, 3)}
        expected = {f"true_recall_at_{k}": x for k, x in recalls.items()}
        expected |= {f"recall_at_{k}": x for k, x in recalls.items()}
        expected["r_precision"] = functional.r_precision(ranked).mean()
        expected["map_at_r"] = functional.average_precision_at_r(ranked).mean()
        return found, expected

    found, expected = measures(queries, targets)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


def test_nothing_to_rank():
    none, some = jnp.zeros((0, 2)), jnp.ones((3, 2))
    ids = jnp.zeros(0, jnp.int32), jnp.arange(3)
    there, back = two_way_contests(none, some, query_ids=ids[0], target_ids=ids[1])
    assert there.counted.shape == (0,)
    assert not back.counted.any()
    there, back = two_way_contests(some, none, query_ids=ids[1], target_ids=ids[0])
    assert not there.counted.any()
    assert back.counted.shape == (0,)


def test_both_directions_hold_less_than_100_mib_at_100k():
    x = jax.ShapeDtypeStruct((100_000, 512), jnp.float32)
    compiled = jax.jit(two_way_contests).lower(x, x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 100 * 2**20


def test_ranks_have_no_slope():
    x = jnp.asarray(embeddings(5, 5)[0])
    slope = jax.jit(jax.grad(lambda y: functional.ranks(y, x)[0].sum()))(x)
    assert not slope.any()
