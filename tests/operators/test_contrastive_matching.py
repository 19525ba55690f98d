"""The matching operator against a loop: which negatives it takes, and what it makes of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core import Batch
from datarax.operators import MatchingOperator, MatchingOperatorConfig, build_operator

N = 6
IDS = np.array([0, 0, 1, 2, 2, 3], np.int32)
DRAWN = {"stochastic": True, "stream_name": "draw"}


def normal(*shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


A, B = normal(N, 4, seed=0), normal(N, 4, seed=1)
COSINES = np.einsum(
    "nd,md->nm",
    A / np.linalg.norm(A, axis=1, keepdims=True),
    B / np.linalg.norm(B, axis=1, keepdims=True),
)


def operator(**options):
    config = MatchingOperatorConfig(
        input_fields=["a", "b"],
        output_fields=["loss", "logit"],
        features={"a": 4, "b": 4},
        fusion="product",
        **options,
    )
    return MatchingOperator(config, rngs=nnx.Rngs(0, draw=1))


def records(rows=N, presence=None, **parts):
    data = {"a": jnp.asarray(A[:rows]), "b": jnp.asarray(B[:rows]), "id": jnp.asarray(IDS[:rows])}
    index = jnp.arange(rows, dtype=jnp.uint32)
    return Batch.from_parts(data, presence=presence, record_index=index, **parts)


def score(op, i, j):
    layer = op.head.head.output
    return float((A[i] * B[j]) @ np.asarray(layer.kernel[...])[:, 0]) + float(layer.bias[...][0])


def hardest(similarity, i, allowed):
    found = [j for j in range(len(similarity)) if allowed(i, j)]
    return max(found, key=lambda j: similarity[i, j]) if found else None


def row_losses(op, there, allowed):
    """The mean cross-entropy over the own pair and the hardest mismatch of each side."""
    losses = np.zeros(N)
    for i in np.flatnonzero(there):
        of_b = hardest(COSINES, i, lambda i, j: there[j] and allowed(COSINES, i, j))
        of_a = hardest(COSINES.T, i, lambda i, j: there[j] and allowed(COSINES.T, i, j))
        logits = [score(op, i, i)]
        logits += [] if of_b is None else [-score(op, i, of_b)]
        logits += [] if of_a is None else [-score(op, of_a, i)]
        losses[i] = np.mean(np.log1p(np.exp(-np.array(logits))))
    return losses


EVERY = np.ones(N, bool)
SOME = np.array([True, True, False, True, True, True])
CASES = {
    "all": ({}, EVERY, lambda s, i, j: i != j),
    "ids": ({"ids_field": "id"}, EVERY, lambda s, i, j: IDS[i] != IDS[j]),
    "margin": ({"margin": 0.3}, EVERY, lambda s, i, j: i != j and s[i, j] <= s[i, i] - 0.3),
    "absent": ({}, SOME, lambda s, i, j: i != j),
}


@pytest.mark.parametrize("case", CASES)
def test_the_hardest_mismatch_of_each_side(case):
    options, there, allowed = CASES[case]
    op = operator(**options)
    batch = records(presence=None if there.all() else {"b": jnp.asarray(there)})
    out = op(batch)
    np.testing.assert_allclose(out["loss"], row_losses(op, there, allowed), rtol=1e-5)
    own = [score(op, i, i) if there[i] else 0 for i in range(N)]
    np.testing.assert_allclose(out["logit"], own, rtol=1e-5, atol=1e-6)
    if not there.all():
        assert out.presence["loss"].tolist() == there.tolist()


def test_accuracy_counts_what_is_scored():
    op = operator()
    out = op(records(rows=1))
    assert float(out.batch_state["loss"]["accuracy"]) == float(score(op, 0, 0) > 0)
    np.testing.assert_allclose(out["loss"], np.log1p(np.exp(-score(op, 0, 0))), rtol=1e-5)


def test_a_draw_is_of_the_batch_and_off_in_eval():
    op, batch = operator(sampling_scale=0.0, **DRAWN), records(epoch=jnp.uint32(0))
    first = np.asarray(op(batch)["loss"])
    np.testing.assert_array_equal(op(batch)["loss"], first)
    epochs = [op(batch.replace(epoch=jnp.uint32(e)))["loss"] for e in range(1, 4)]
    assert any(np.abs(np.asarray(x) - first).max() > 1e-3 for x in epochs)
    op.eval()
    np.testing.assert_allclose(
        op(batch)["loss"], row_losses(op, EVERY, lambda s, i, j: i != j), rtol=1e-5
    )


def test_draws_follow_the_similarity_and_never_take_the_same_id():
    op = operator(ids_field="id", sampling_scale=3.0, **DRAWN)
    scores = np.array([[score(op, i, j) for j in range(N)] for i in range(N)])
    run = jax.jit(jax.vmap(lambda epoch: op(records(epoch=epoch))["loss"][0]))
    losses = np.asarray(run(jnp.arange(2000, dtype=jnp.uint32)))

    def mismatch(similarity):
        weights = np.where(IDS[0] != IDS, np.exp(3 * similarity), 0)
        return weights / weights.sum()

    own = np.log1p(np.exp(-scores[0, 0]))
    expected = own + mismatch(COSINES[0]) @ np.log1p(np.exp(scores[0]))
    expected += mismatch(COSINES[:, 0]) @ np.log1p(np.exp(scores[:, 0]))
    assert losses.mean() == pytest.approx(expected / 3, abs=float(4 * losses.std() / 2000**0.5))


def test_it_learns_to_tell_matches():
    op = operator(hidden_features=8)
    grads = nnx.jit(nnx.grad(lambda op: op(records()).mean("loss")))(op)
    moved = jax.tree.map(lambda p, g: p - 0.5 * g, nnx.state(op, nnx.Param), grads)
    before = float(op(records()).mean("loss"))
    nnx.update(op, moved)
    assert float(op(records()).mean("loss")) < before


@pytest.mark.parametrize(
    "table",
    [{"operation": "matching"}, {"operation": "contrastive", "method": "supervised"}],
    ids=["matching", "supervised"],
)
def test_a_record_without_its_id_is_left_out(table):
    rng = np.random.default_rng(3)
    data = {name: jnp.asarray(rng.normal(size=(4, 3)), jnp.float32) for name in ("a", "b")}
    fields = {"input_fields": ["a", "b"], "output_fields": ["c"], "features": {"a": 3, "b": 3}}
    op = build_operator(table | fields | {"ids_field": "id"}, rngs=nnx.Rngs(0))
    there = jnp.asarray([True, False, True, True])
    # Not an id like any other: with 0 in its place, the second would be a match of the first.
    batch = Batch.from_parts(data | {"id": jnp.asarray([0, 0, 1, 2])}, presence={"id": there})
    out = op(batch)
    few = op(Batch.from_parts({name: x[there] for name, x in batch.data.items()}))
    np.testing.assert_allclose(out["c"][there], few["c"], rtol=1e-5)
    assert out.presence["c"].tolist() == there.tolist()
    assert not out["c"][1]
