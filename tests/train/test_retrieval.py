import numpy as np
import pytest

from datarax.sources.grouping import join_equal
from datarax.train.baseline import PENALTIES, Held, Ridge, features
from datarax.train.retrieval import (
    chance_recalls,
    relevant_targets,
    retrieval_metrics,
)


def test_metrics_of_known_ranks():
    scores = np.zeros((4, 40))
    for row, rank in enumerate((1, 2, 6, 30)):
        scores[row, :rank] = np.arange(rank, 0, -1)
    relevant = np.zeros((4, 40), bool)
    relevant[np.arange(4), [0, 1, 5, 29]] = True
    metrics = retrieval_metrics(scores, relevant)
    assert metrics == pytest.approx(
        {
            "recall_at_1": 0.25,
            "recall_at_5": 0.5,
            "recall_at_10": 0.75,
            "median_rank": 4.0,
            "mean_rank": 39 / 4,
            "mrr": (1 + 1 / 2 + 1 / 6 + 1 / 30) / 4,
        }
    )


def test_a_constant_model_is_at_chance():
    relevant = np.eye(200, dtype=bool)
    metrics = retrieval_metrics(np.ones((200, 200)), relevant)
    assert metrics["recall_at_10"] == pytest.approx(10 / 200)
    assert metrics["median_rank"] == 100.5
    assert chance_recalls(relevant)["recall_at_1"] == pytest.approx(1 / 200)


def test_equal_content_shares_credit_both_ways():
    image = np.array([[1, 1], [1, 1], [2, 2]], np.uint8)
    name = np.array([[1], [2], [3]], np.uint8)
    groups = [join_equal([column], [None]) for column in (image, name)]
    expected = [[True, True, False], [True, True, False], [False, False, True]]
    assert relevant_targets(*groups).tolist() == expected
    assert relevant_targets(*reversed(groups)).tolist() == expected


def test_ridge_is_the_closed_form_with_the_best_penalty():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(5, 4))

    def part(n):
        x = rng.normal(size=(n, 5)) + 3
        return x, x @ weights + rng.normal(size=(n, 4)) + 1

    (x, y), validation, test = part(60), part(30), part(40)
    held = [Held(*pair, np.eye(len(pair[0]), dtype=bool)) for pair in (validation, test)]

    def metrics(pair, penalty):
        centred = x - x.mean(axis=0)
        w = np.linalg.solve(
            centred.T @ centred + penalty * np.eye(5), centred.T @ (y - y.mean(axis=0))
        )
        predicted = (pair[0] - x.mean(axis=0)) @ w
        target = pair[1] - y.mean(axis=0)
        cosine = predicted @ target.T
        cosine /= np.linalg.norm(predicted, axis=1)[:, None] * np.linalg.norm(target, axis=1)[None]
        return retrieval_metrics(cosine, np.eye(len(cosine), dtype=bool))

    best = max(PENALTIES, key=lambda penalty: metrics(validation, penalty)["mrr"])
    found = Ridge.fit(x).recalls(y, validation=held[0], test=held[1])
    expected = metrics(test, best)
    assert found == pytest.approx({name: expected[name] for name in found})
    assert found["recall_at_1"] > 0.2


def test_plain_ridge_takes_the_nearest_target():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)) + 3, rng.normal(size=(60, 4)) + 1
    queries, targets = rng.normal(size=(20, 5)) + 3, rng.normal(size=(20, 4)) + 1
    centred = x - x.mean(axis=0)
    w = np.linalg.solve(centred.T @ centred + np.eye(5), centred.T @ (y - y.mean(axis=0)))
    predicted = (queries - x.mean(axis=0)) @ w + y.mean(axis=0)
    distance = np.sum((predicted[:, None] - targets[None]) ** 2, axis=-1)
    relevant = np.eye(20, dtype=bool)
    found = Ridge.fit(x).plain_recalls(y, test=Held(queries, targets, relevant))
    expected = retrieval_metrics(-distance, relevant)
    assert found == pytest.approx({name: expected[name] for name in found})


def test_plain_features_of_names_count_words():
    names = np.stack([np.frombuffer(t.ljust(9, b"\0"), np.uint8) for t in (b"a b a", b"b")])
    made = features("name", names, plain=True)
    assert sorted(made[0][made[0] > 0].tolist()) == [1, 2]
    assert made[0] @ made[1] == 1


def test_features_are_pixels_coordinates_and_pieces_of_names():
    image = np.full((2, 2, 2), 255, np.uint8)
    np.testing.assert_array_equal(features("image", image), np.ones((2, 4)))
    outline = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    np.testing.assert_array_equal(features("outline", outline), np.arange(6.0)[None])
    texts = [b"small a", b"a small", b"large a"]
    names = np.stack([np.frombuffer(t.ljust(9, b"\0"), np.uint8) for t in texts])
    made = features("name", names)
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1)
    np.testing.assert_array_equal(made[0], made[1])
    assert 0 < made[0] @ made[2] < 0.9
