"""The queue against a plain Python list, and what a ring buffer gets wrong elsewhere."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.nn import EmbeddingQueue

CAPACITY, FEATURES = 5, 3


@nnx.jit
def put(queue, embeddings, where, ids):
    queue.enqueue(embeddings, where=where, ids=ids)


def unit(x):
    return x / np.linalg.norm(x)


class Fifo:
    """Records in the order of their coming, the oldest dropped."""

    def __init__(self):
        self.records = []

    def enqueue(self, embeddings, where, ids):
        for i, identity in enumerate(ids):
            there = [bool(mask[i]) for mask in where]
            if any(there):
                vectors = [
                    unit(x[i]) if t else np.zeros(FEATURES)
                    for x, t in zip(embeddings, there, strict=True)
                ]
                self.records.append((int(identity), there, np.stack(vectors)))
        self.records = self.records[-CAPACITY:]


def oldest_first(queue):
    start = int(queue.next_slot)
    order = [(start + k) % CAPACITY for k in range(CAPACITY)]
    masks = np.stack([np.asarray(queue.valid(m)) for m in range(2)], axis=1)
    vectors = np.stack([np.asarray(queue.embeddings(m)) for m in range(2)], axis=1)
    return [(int(queue.ids[k]), list(masks[k]), vectors[k]) for k in order if masks[k].any()]


@pytest.mark.parametrize("size", [1, 3, 5, 12])
def test_it_is_a_fifo(size):
    rng = np.random.default_rng(size)
    queue = EmbeddingQueue(CAPACITY, FEATURES, with_ids=True)
    plain = Fifo()
    for step in range(6):
        embeddings = [rng.normal(size=(size, FEATURES)).astype(np.float32) for _ in range(2)]
        where = [rng.random(size) < 0.6 for _ in range(2)]
        ids = np.arange(step * size, (step + 1) * size, dtype=np.int32)
        dirty = [np.where(m[:, None], x, np.nan) for x, m in zip(embeddings, where, strict=True)]
        put(queue, *jax.tree.map(jnp.asarray, (dirty, where, ids)))
        plain.enqueue(embeddings, where, ids)
        found = oldest_first(queue)
        assert [(i, there) for i, there, _ in found] == [(i, t) for i, t, _ in plain.records]
        for (_, _, ours), (_, _, theirs) in zip(found, plain.records, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        assert int(queue.size) == len(plain.records)


def rows(*values):
    return jnp.asarray([[v, 0.0] for v in values])


def test_a_new_queue_has_nothing_to_contrast_with():
    queue = EmbeddingQueue(3, 2, modalities=1)
    assert not queue.valid(0).any()
    assert int(queue.size) == 0
    assert queue.ids is None
    queue.enqueue([rows(2.0)])
    assert queue.valid(0).tolist() == [True, False, False]
    queue.clear()
    assert not queue.valid(0).any()
    assert not np.any(queue.embeddings(0))


def test_no_gradient_enters_or_leaves():
    queue = EmbeddingQueue(3, 2, modalities=1)

    def loss(queue, x):
        queue.enqueue([x])
        return jnp.sum(queue.embeddings(0))

    value, grad = nnx.value_and_grad(loss, argnums=1)(queue, rows(2.0, 3.0))
    assert float(value) == pytest.approx(2)
    assert not np.any(grad)
    assert int(queue.size) == 2  # nnx.grad hands the change on


def test_a_plain_transform_changes_nothing_and_does_not_raise():
    queue = EmbeddingQueue(3, 2, modalities=1)

    def loss(x):
        queue.enqueue([x])
        return jnp.sum(x)

    assert float(jax.jit(loss)(rows(1.0))) == 1
    assert jax.grad(loss)(rows(1.0)).shape == (1, 2)
    assert int(queue.size) == 0


def test_half_precision_and_zero_vectors_are_stored_as_float32():
    queue = EmbeddingQueue(2, 2, modalities=1)
    queue.enqueue([jnp.asarray([[3.0, 4.0], [0.0, 0.0]], jnp.bfloat16)])
    np.testing.assert_allclose(queue.embeddings(0), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    assert queue.embeddings(0).dtype == jnp.float32


def test_its_state_is_no_parameter():
    queue = EmbeddingQueue(2, 2, with_ids=True)
    assert not jax.tree.leaves(nnx.state(queue, nnx.Param))
    assert len(jax.tree.leaves(nnx.state(queue))) == 4


X = jnp.ones((4, 2))
ALL = jnp.ones(4, bool)
ONE = partial(EmbeddingQueue, 3, 2, modalities=1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: EmbeddingQueue(0, 2), ValueError, "capacity must be at least 1, got 0"),
        (lambda: EmbeddingQueue(2, 0), ValueError, "features must be at least 1, got 0"),
        (lambda: ONE().enqueue([X, X]), ValueError, "expected 1 embeddings, got 2"),
        (lambda: ONE().enqueue([X[:, :1]]), ValueError, r"must have shape \(4, 2\), got \(4, 1\)"),
        (lambda: ONE().enqueue([X.astype(int)]), TypeError, r"embeddings\[0\] must be floating"),
        (lambda: ONE().enqueue([X], where=[]), ValueError, "where must hold 1 masks, got 0"),
        (lambda: ONE().enqueue([X], where=[X[:, 0]]), TypeError, r"where\[0\] must be boolean"),
        (lambda: ONE().enqueue([X], where=[ALL[:2]]), ValueError, r"where\[0\] must have shape"),
        (lambda: ONE().enqueue([X], ids=jnp.arange(4)), ValueError, "without ids takes none"),
        (lambda: ONE(with_ids=True).enqueue([X]), ValueError, "with ids needs them, got None"),
        (lambda: ONE(with_ids=True).enqueue([X], ids=X[:, 0]), TypeError, "ids must be integers"),
        (
            lambda: ONE(with_ids=True).enqueue([X], ids=jnp.arange(3)),
            ValueError,
            r"ids must have shape \(4,\), got \(3,\)",
        ),
    ],
)
def test_what_it_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()
