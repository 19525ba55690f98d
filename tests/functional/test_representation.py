"""Measures of representations and of logits, zero-shot accuracy, and what they refuse."""

import inspect

import jax
import jax.numpy as jnp
import metric_oracles as oracle
import numpy as np
import pytest
from cca_zoo.linear import CCA

from datarax import functional

WHERE = np.array([1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1], bool)


def features(seed=0, n=12):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, 4))
    return a, a[:, :3] + rng.normal(size=(n, 3))


def garbage(x):
    return jnp.asarray(np.where(WHERE[:, None], x, np.nan))


@pytest.mark.parametrize(
    "k", [3, pytest.param(1, marks=pytest.mark.slow), pytest.param(9, marks=pytest.mark.slow)]
)
def test_mutual_knn_matches_the_loop(k):
    with jax.enable_x64(True):
        a, b = features()
        found = jax.jit(lambda a, b: functional.mutual_knn(a, b, k=k, where=jnp.asarray(WHERE)))(
            garbage(a), garbage(b)
        )
        np.testing.assert_allclose(found, oracle.mutual_knn(a[WHERE], b[WHERE], k), rtol=1e-12)


@pytest.mark.parametrize(
    "k", [4, pytest.param(2, marks=pytest.mark.slow), pytest.param(9, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("debiased", [True, False])
def test_cknna_matches_the_loop(k, debiased):
    with jax.enable_x64(True):
        a, b = features(1)
        found = jax.jit(
            lambda a, b: functional.cknna(a, b, k=k, where=jnp.asarray(WHERE), debiased=debiased)
        )(garbage(a), garbage(b))
        expected = oracle.cknna(a[WHERE], b[WHERE], k, debiased=debiased)
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_more_neighbours_than_rows_are_all_rows():
    x, y = (jnp.asarray(x, jnp.float32) for x in features(n=4))
    assert functional.mutual_knn(x, y, k=50) == 1
    np.testing.assert_allclose(functional.cknna(x, y, k=50), functional.cknna(x, y, k=3), rtol=1e-6)


def test_cca_is_that_of_cca_zoo():
    a, b = features(2, n=40)
    scores = CCA(n_components=3).fit((a, b)).score((a, b))
    with jax.enable_x64(True):
        x, y = jnp.asarray(a), jnp.asarray(b)
        np.testing.assert_allclose(functional.cca_correlation(x, y), np.mean(scores), rtol=1e-6)
        where = jnp.arange(60) < 40
        padded = [jnp.pad(z, ((0, 20), (0, 0)), constant_values=jnp.nan) for z in (x, y)]
        for count in (1, 2, 3):
            np.testing.assert_allclose(
                functional.cca_correlation(*padded, num_components=count, where=where),
                functional.cca_correlation(x, y, num_components=count),
                rtol=1e-9,
            )


def test_the_squares_of_the_gaps_add_up():
    rng = np.random.default_rng(3)
    a, b = (jnp.asarray(rng.normal(size=(9, 4)), jnp.float32) for _ in range(2))
    parts = functional.modality_gap(a, b) ** 2 + functional.distribution_gap(a, b) ** 2
    np.testing.assert_allclose(parts, jnp.mean(jnp.sum((a - b) ** 2, axis=1)), rtol=1e-5)


def test_effective_rank_of_equal_directions_is_their_number():
    x = jnp.concatenate([jnp.eye(3), jnp.zeros((2, 3))], axis=0)
    np.testing.assert_allclose(functional.effective_rank(x), 3, rtol=1e-6)
    assert functional.effective_rank(jnp.zeros((3, 2))) == 0
    np.testing.assert_allclose(functional.effective_rank(jnp.ones((3, 2)), center=True), 0)


def test_zero_shot_accuracy_with_ensembles():
    prompts = jnp.asarray(
        [[[1.0, 0.0], [jnp.nan, 0.0]], [[0.0, 2.0], [0.0, 1.0]], [[1, 1], [1, 1]]]
    )
    mask = jnp.asarray([[True, False], [True, True], [True, True]])
    classes = functional.class_embeddings(prompts, mask=mask)
    examples = jnp.asarray([[3.0, 0.1], [0.1, 3.0], [2.0, 2.1], [0.0, 1.0], [jnp.nan, 1.0]])
    labels, where = jnp.asarray([0, 0, 2, 7, 1]), jnp.arange(5) < 4
    found = functional.zero_shot_accuracy(examples, classes, labels, ks=(1, 2, 3), where=where)
    np.testing.assert_allclose(found["accuracy_at_1"], 2 / 3)
    np.testing.assert_allclose(found["accuracy_at_2"], 2 / 3)
    np.testing.assert_allclose(found["accuracy_at_3"], 1)
    tied = functional.zero_shot_accuracy(
        jnp.ones((2, 2)), jnp.ones((3, 2)), jnp.asarray([0, 2]), ks=(1,), ties="lowest_index"
    )
    assert tied["accuracy_at_1"] == 0.5


def test_logit_statistics():
    logits = jnp.asarray([[9.0, 1.0, jnp.nan], [2.0, 7.0, 3.0]])
    found = functional.logit_statistics(logits, where=jnp.isfinite(logits))
    expected = {
        "positive_min": 7,
        "positive_mean": 8,
        "positive_max": 9,
        "negative_min": 1,
        "negative_mean": 2,
        "negative_max": 3,
    }
    assert {name: float(x) for name, x in found.items()} == expected
    none = functional.logit_statistics(logits, where=jnp.zeros((2, 1), bool))
    assert not any(none.values())


def test_cknna_needs_four_rows_without_bias():
    x, y = (jnp.asarray(np.random.default_rng(i).normal(size=(5, 3)), jnp.float32) for i in (0, 1))
    for kept in (2, 3):
        assert functional.cknna(x, y, k=2, where=jnp.arange(5) < kept) == 0
        assert functional.cknna(x[:kept], y[:kept], k=2) == 0
    assert functional.cknna(x, y, k=2, where=jnp.arange(5) < 3, debiased=False) != 0


X = jnp.ones((5, 3))


@pytest.mark.parametrize(
    ("function", "arguments", "options", "error", "message"),
    [
        (functional.mutual_knn, [X, X[:4]], {"k": 1}, ValueError, "one number of rows"),
        (functional.mutual_knn, [X > 0, X], {"k": 1}, TypeError, "a must be floating point"),
        (functional.mutual_knn, [X[0], X[0]], {"k": 1}, ValueError, r"a must have shape \[n, d\]"),
        (functional.effective_rank, [X > 0], {}, TypeError, "x must be floating point, got bool"),
        (functional.cca_correlation, [X[0], X], {}, ValueError, r"a must have shape \[n, d\]"),
        (functional.mutual_knn, [X, X], {"k": 0}, ValueError, "k must be at least 1, got 0"),
        (functional.cknna, [X, X], {"k": 1}, ValueError, "k must be at least 2, got 1"),
        (
            functional.cca_correlation,
            [X, X],
            {"num_components": 4},
            ValueError,
            r"num_components must be in \[1, 3\], got 4",
        ),
        (functional.distribution_gap, [X, X[:, :2]], {}, ValueError, "expected equal shapes"),
        (functional.effective_rank, [X[0]], {}, ValueError, r"x must have shape \[n, d\]"),
        (functional.class_embeddings, [X], {}, ValueError, r"prompts must have shape \[c, p, d\]"),
        (functional.class_embeddings, [X > 0], {}, TypeError, "prompts must be floating point"),
        (functional.logit_statistics, [X > 0], {}, TypeError, "logits must be floating point"),
        (
            functional.logit_statistics,
            [X],
            {"positives": X},
            TypeError,
            "positives must be boolean",
        ),
    ],
)
def test_refuses(function, arguments, options, error, message):
    with pytest.raises(error, match=message):
        inspect.unwrap(function)(*arguments, **options)
