"""Streaming metrics: batches give what all rows together give."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax import functional
from datarax.nn import EmbeddingGeometry, GalleryRetrieval, RetrievalBuffer, metrics

SPLITS = [(0, 5), (5, 6), (6, 13)]


def rows(n=13, width=3, seed=0):
    rng = np.random.default_rng(seed)
    a, b = (jnp.asarray(rng.integers(-2, 3, (n, width)), jnp.float32) for _ in range(2))
    ids = jnp.asarray(rng.integers(0, 6, n), jnp.int32)
    return a, b, ids, jnp.asarray(rng.random(n) < 0.7), jnp.asarray(rng.random(n) < 0.7)


def same(found, expected):
    assert set(found) == set(expected)
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, err_msg=name)


@nnx.jit
def compiled_update(metric, *args, **options):
    metric.update(*args, **options)


def eager_update(metric, *args, **options):
    metric.update(*args, **options)


@pytest.mark.parametrize(
    "update", [compiled_update, pytest.param(eager_update, marks=pytest.mark.slow)]
)
def test_buffer_equals_all_rows_at_once(update):
    a, b, ids, there, here = rows()
    metric = RetrievalBuffer(20, 3, ks=(1, 3))
    for _ in range(2):
        metric.reset()
        for start, stop in SPLITS:
            part = slice(start, stop)
            update(
                metric,
                jnp.where(there[part, None], a[part], jnp.nan),
                b[part],
                query_ids=ids[part],
                query_presence=there[part],
                target_presence=here[part],
            )
    expected = functional.retrieval_metrics(
        a, b, query_ids=ids, query_presence=there, target_presence=here, ks=(1, 3)
    )
    same(metric.compute(), expected)
    assert metric.dropped == 0


def test_a_full_buffer_drops_and_counts():
    a, b, *_ = rows()
    metric = RetrievalBuffer(6, 3, ks=(1,))
    for start, stop in SPLITS:
        metric.update(a[start:stop], b[start:stop])
    assert metric.dropped == 7
    same(metric.compute(), functional.retrieval_metrics(a[:6], b[:6], ks=(1,)))
    assert RetrievalBuffer(6, 3, ks=(1,)).compute()["recall_at_1"] == 0


@pytest.mark.parametrize("ties", ["expected", pytest.param("pessimistic", marks=pytest.mark.slow)])
def test_gallery_equals_all_queries_at_once(ties):
    a, b, ids, there, here = rows()
    metric = GalleryRetrieval(ks=(1, 3), ties=ties)
    for _ in range(2):
        metric.reset()
        for start, stop in SPLITS:
            part = slice(start, stop)
            compiled_update(
                metric,
                a[part],
                b,
                query_ids=ids[part],
                gallery_ids=ids,
                query_presence=there[part],
                gallery_presence=here,
            )
    whole = functional.retrieval_metrics(
        a, b, query_ids=ids, query_presence=there, target_presence=here, ks=(1, 3), ties=ties
    )
    found = metric.compute()
    assert "median_rank" in found
    same(found, {name: whole[name] for name in found})


@pytest.mark.parametrize("ties", ["optimistic", "expected", "pessimistic"])
def test_the_median_of_a_gallery_is_that_of_numpy(ties, monkeypatch):
    monkeypatch.setattr(metrics, "MOST_RANKS", 31)
    rng = np.random.default_rng(3)
    gallery = rng.integers(0, 3, (30, 2)).astype(np.float32)  # many equal scores
    whole = jnp.asarray(gallery)
    for queries in (1, 2, 7, 8):
        a = rng.integers(-2, 3, (queries, 2)).astype(np.float32)
        positives = rng.integers(0, 30, queries)
        scores = a @ gallery.T
        own = scores[np.arange(queries), positives][:, None]
        better, equal = (scores > own).sum(1), (scores == own).sum(1) - 1
        share = {"optimistic": 0, "expected": 0.5, "pessimistic": 1}[ties]
        metric = GalleryRetrieval(ks=[1], ties=ties)
        for row in range(queries):
            one = slice(row, row + 1)
            metric.update(jnp.asarray(a[one]), whole, positives=jnp.asarray(positives[one]))
        expected = np.median(1 + better + share * equal)
        assert float(metric.compute()["median_rank"]) == expected
    far = GalleryRetrieval(ks=[1], ties=ties)
    far.update(jnp.ones((1, 1)), jnp.arange(60.0)[:, None], positives=jnp.array([0]))
    assert float(far.compute()["median_rank"]) == np.inf
    assert float(GalleryRetrieval(ks=[1]).compute()["median_rank"]) == 0


def test_geometry_equals_all_rows_at_once():
    a, b, _, there, _ = rows()
    metric = EmbeddingGeometry(3)
    for start, stop in SPLITS:
        part = slice(start, stop)
        metric.update(jnp.where(there[part, None], a[part], jnp.nan), b[part], where=there[part])
    found = metric.compute()
    kept = (a[there], b[there])
    np.testing.assert_allclose(found["modality_gap"], functional.modality_gap(*kept), rtol=1e-5)
    np.testing.assert_allclose(
        found["distribution_gap"], functional.distribution_gap(*kept), rtol=1e-5
    )
    np.testing.assert_allclose(
        found["alignment"], jnp.mean(functional.alignment_loss(*kept)), rtol=1e-5
    )
    metric.reset()
    assert not any(metric.compute().values())
    metric.update(a, b, where=there)
    spread = (functional.uniformity(a, where=there) + functional.uniformity(b, where=there)) / 2
    np.testing.assert_allclose(metric.compute()["uniformity"], spread, rtol=1e-5)


def test_geometry_keeps_what_sums_would_round_away():
    a, b, *_ = rows()
    far = 50 * a + 1000
    metric = EmbeddingGeometry(3)
    for part in (slice(0, 5), slice(5, 5), slice(5, 13)):
        compiled_update(metric, far[part], 50 * a[part] - b[part])
    expected = functional.distribution_gap(far, 50 * a - b)
    np.testing.assert_allclose(metric.compute()["distribution_gap"], expected, rtol=1e-4)
    apart = EmbeddingGeometry(1)
    apart.update(jnp.asarray([[0.0], [20.0]]), jnp.asarray([[0.0], [20.0]]))
    np.testing.assert_allclose(apart.compute()["uniformity"], -800, rtol=1e-6)


BUFFER, PAIR = RetrievalBuffer(3, 2), jnp.ones((2, 2))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"query_ids": jnp.ones(2)}, TypeError, "query_ids must be integers, got float32"),
        ({"query_ids": jnp.arange(3)}, ValueError, r"query_ids must have shape \(2,\), got \(3,\)"),
        ({"query_presence": jnp.ones(2)}, TypeError, "query_presence must be boolean"),
        ({"target_presence": jnp.ones(3, bool)}, ValueError, r"target_presence must have shape"),
    ],
)
def test_buffer_refuses(options, error, message):
    with pytest.raises(error, match=message):
        BUFFER.update(PAIR, PAIR, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RetrievalBuffer(0, 3), "capacity must be at least 1, got 0"),
        (lambda: RetrievalBuffer(3, 0), "features must be at least 1, got 0"),
        (lambda: RetrievalBuffer(3, 2, ks=(0,)), "ks must be at least 1 each, got 0"),
        (lambda: GalleryRetrieval(ks=(1, 0), ties="optimistic"), "ks must be at least 1 each"),
        (lambda: EmbeddingGeometry(0), "features must be positive, got 0"),
        (lambda: EmbeddingGeometry(3, t=0.0), "t must be positive, got 0"),
        (
            lambda: RetrievalBuffer(3, 2).update(jnp.ones((2, 3)), jnp.ones((2, 3))),
            r"queries must have shape \[n, 2\], got \(2, 3\)",
        ),
        (
            lambda: RetrievalBuffer(3, 2).update(
                jnp.ones((2, 2)), jnp.ones((2, 2)), target_ids=jnp.arange(2)
            ),
            "target_ids need query_ids",
        ),
        (
            lambda: EmbeddingGeometry(2).update(jnp.ones((2, 3)), jnp.ones((2, 3))),
            r"a must have shape \[n, 2\], got \(2, 3\)",
        ),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()
