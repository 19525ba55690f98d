"""Supervised contrast, soft targets, triplets, tokens that meet late, and drawn negatives."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from datarax import functional
from datarax.functional import has_positive, sample_hard_negatives

# The errors are those a user sees: without the run-time type checks of conftest.
bare_supervised, bare_positive, bare_sigmoid, bare_triplet, bare_late, bare_draw = (
    inspect.unwrap(f)
    for f in (
        functional.supervised_contrastive,
        functional.has_positive,
        functional.sigmoid_contrastive,
        functional.triplet,
        functional.late_interaction,
        functional.sample_hard_negatives,
    )
)
info_nce = jax.jit(functional.info_nce, static_argnames=("directions",))
supervised_contrastive = jax.jit(functional.supervised_contrastive, static_argnames="distillation")
sigmoid_contrastive = jax.jit(functional.sigmoid_contrastive)
triplet = jax.jit(functional.triplet, static_argnames=("mining", "distance", "directions"))
late_interaction = jax.jit(functional.late_interaction)
A, B = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 4)), jnp.float32)
IDS = jnp.array([3, 1, 3, 2, 1, 3])
WHERE = jnp.array([True, True, True, True, False, True])
T = jnp.asarray(np.random.default_rng(1).normal(size=(6, 3, 4)), jnp.float32)


def test_supervised_rows_without_positives_are_zero_and_has_positive_tells():
    loss = jax.jit(lambda a: supervised_contrastive(a, logit_scale=2.0, ids=IDS, where=WHERE))
    counted = has_positive(IDS, WHERE)
    np.testing.assert_array_equal(counted, [True, False, True, False, False, True])
    np.testing.assert_array_equal(loss(A) > 0, counted)
    np.testing.assert_array_equal(has_positive(IDS, WHERE, exclude_self=False), WHERE)
    assert not jax.grad(lambda a: loss(a)[jnp.array([1, 3, 4])].sum())(A).any()


def test_supervised_against_another_side_is_one_direction_of_info_nce():
    for ids in (None, IDS):
        got = supervised_contrastive(A, B, logit_scale=2.0, ids=ids)
        expected = info_nce(A, B, logit_scale=2.0, ids=ids, directions="a_to_b")
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_hard_targets_and_no_distillation_are_the_ids():
    targets = (IDS[:, None] == IDS[None, :]).astype(jnp.float32)
    got = supervised_contrastive(
        A, B, logit_scale=2.0, targets=7 * targets, teacher_similarity=A @ B.T, distillation=0.0
    )
    expected = supervised_contrastive(A, B, logit_scale=2.0, ids=IDS)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_no_gradient_reaches_the_teacher_and_its_garbage_is_masked():
    @jax.jit
    def run(teacher):
        def total(teacher, share):
            return functional.supervised_contrastive(
                A,
                B,
                logit_scale=2.0,
                where=WHERE,
                teacher_similarity=teacher,
                distillation=share,
            ).sum()

        return jax.value_and_grad(total, (0, 1))(teacher, jnp.float32(0.4))

    value, (slope, share) = run(A @ B.T)
    pairs = WHERE[:, None] & WHERE[None, :]
    dirty, (_, dirty_share) = run(jnp.where(pairs, A @ B.T, jnp.nan))
    assert not slope.any()
    assert share != 0
    np.testing.assert_array_equal([value, share], [dirty, dirty_share])


def test_the_relative_bias_is_another_name_of_the_bias():
    got = sigmoid_contrastive(A, B, logit_scale=4.0, relative_bias=0.5)
    expected = sigmoid_contrastive(A, B, logit_scale=4.0, logit_bias=-2.0)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_soft_targets_of_zero_and_one_are_ids():
    targets = (IDS[:, None] == IDS[None, :]).astype(jnp.float32)
    pairs = WHERE[:, None] & WHERE[None, :]

    @jax.jit
    def run(**matches):
        def total(scale):
            return functional.sigmoid_contrastive(
                A, B, logit_scale=scale, logit_bias=-10.0, where=WHERE, **matches
            ).sum()

        return jax.value_and_grad(total)(100.0)

    got = run(targets=jnp.where(pairs, targets, jnp.nan))
    np.testing.assert_allclose(got, run(ids=IDS), rtol=1e-5)


def test_hard_triplets_are_those_of_optax():
    distances = np.linalg.norm(np.asarray(A)[:, None] - np.asarray(B)[None], axis=2)
    hardest = np.where(np.eye(6, dtype=bool), np.inf, distances).argmin(axis=1)
    with jax.numpy_dtype_promotion("standard"):
        expected = optax.losses.triplet_margin_loss(A, B, B[hardest], margin=0.7, eps=0.0)
    got = triplet(A, B, margin=0.7, mining="hard", distance="euclidean", directions="a_to_b")
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_batch_hard_of_one_modality_takes_the_farthest_of_its_id():
    distances = np.linalg.norm(np.asarray(A)[:, None] - np.asarray(A)[None], axis=2)
    same = np.asarray(IDS)[:, None] == np.asarray(IDS)[None]
    farthest = np.where(same, distances, -np.inf).max(axis=1)
    nearest = np.where(same, np.inf, distances).min(axis=1)
    got = triplet(A, A, margin=0.3, mining="hard", distance="euclidean", ids=IDS)
    np.testing.assert_allclose(got, np.maximum(farthest - nearest + 0.3, 0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("mining", "distance"), [("sum", "cosine"), ("hard", "euclidean"), ("semi_hard", "dot")]
)
def test_triplets_of_equal_or_zero_rows_have_finite_gradients(mining, distance):
    slope = jax.jit(
        jax.grad(lambda a, b: triplet(a, b, mining=mining, distance=distance).sum(), (0, 1))
    )
    for a, b in ((A, A), (jnp.zeros_like(A), B), (jnp.repeat(A[:1], 6, axis=0),) * 2):
        assert all(jnp.isfinite(x).all() for x in slope(a, b))
    assert not any(x.any() for x in slope(A[:1], B[:1]))
    assert triplet(A[:0], B[:0], mining=mining, distance=distance).shape == (0,)


def test_a_semi_hard_negative_is_less_similar_than_the_positive():
    a = jnp.array([[1.0, 0.0]] * 3)
    b = jnp.array([[0.5, 0.0], [0.9, 0.0], [0.4, 0.0]])
    got = triplet(a, b, margin=0.2, mining="semi_hard", directions="a_to_b")
    # Row 0 skips 0.9 and takes 0.4; row 1 takes 0.5, beyond its margin; row 2 has none.
    np.testing.assert_allclose(got, [0.1, 0, 0], atol=1e-6)


def test_tokens_of_one_are_dot_products_and_an_empty_side_is_zero():
    one = late_interaction(T[:, :1], T[:4, 1:2])
    np.testing.assert_allclose(one, T[:, 0] @ T[:4, 1].T, rtol=1e-6)
    mask = jnp.ones((6, 3), bool).at[2].set(False)
    value = late_interaction(T, T, a_mask=mask)
    assert not value[2].any()
    assert value[:, 2].any()
    assert not late_interaction(T, T, b_mask=mask)[:, 2].any()


def test_drawn_negatives_follow_the_softmax_of_the_candidates():
    similarity = jnp.array([[9.0, 0.0, 1.0, 2.0]])
    ids = jnp.array([5, 6, 5, 7])
    draw = jax.jit(jax.vmap(lambda key: sample_hard_negatives(key, similarity, ids=ids)))
    indices, valid = draw(jax.random.split(jax.random.key(0), 4000))
    assert valid.all()
    counts = np.bincount(np.asarray(indices)[:, 0], minlength=4) / 4000
    share = np.exp(2) / (1 + np.exp(2))
    np.testing.assert_allclose(counts, [0, 1 - share, 0, share], atol=0.03)


def test_no_gradient_and_no_drawn_positive_or_masked_column():
    where = jnp.array([True, True, False, True, True, False])
    similarity = 3 * A @ B.T
    garbage = jnp.where(where[None, :], similarity, jnp.nan)
    for seed in range(20):
        indices, valid = sample_hard_negatives(jax.random.key(seed), garbage, where=where, ids=IDS)
        assert valid.all()
        assert where[indices].all()
        assert (IDS[indices] != IDS).all()


def test_the_margin_leaves_out_what_is_too_close_to_the_positive():
    similarity = jnp.array([[1.0, 0.95, 0.5], [2.0, 1.0, 1.5], [0.0, 0.9, 1.0]])
    indices, valid = sample_hard_negatives(jax.random.key(0), similarity, margin=0.2)
    np.testing.assert_array_equal(valid, [True, False, True])
    np.testing.assert_array_equal(indices, [2, 0, 0])
    _, valid = sample_hard_negatives(jax.random.key(0), similarity, margin=0.0)
    np.testing.assert_array_equal(valid, [True, False, True])


KEY = jax.random.key(0)
SQUARE = jnp.eye(6)


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (lambda: bare_supervised(A, logit_scale=1.0), ValueError, "give ids or targets"),
        (
            lambda: bare_supervised(A, B, logit_scale=1.0, ids=IDS, targets=SQUARE),
            ValueError,
            "expected ids or targets, got both",
        ),
        (
            lambda: bare_supervised(A, B, logit_scale=1.0, targets=jnp.eye(5)),
            ValueError,
            r"targets must have shape \(6, 6\), got \(5, 5\)",
        ),
        (
            lambda: bare_supervised(
                A, B, logit_scale=1.0, teacher_similarity=jnp.eye(6, dtype=int)
            ),
            TypeError,
            "teacher_similarity must be floating point, got int32",
        ),
        (
            lambda: bare_supervised(A, B, logit_scale=1.0, distillation=0.4),
            ValueError,
            "distillation needs teacher_similarity, got None",
        ),
        (
            lambda: bare_supervised(
                A, B, logit_scale=1.0, distillation=1.4, teacher_similarity=SQUARE
            ),
            ValueError,
            r"distillation must be in \[0, 1\], got 1.4",
        ),
        (
            lambda: bare_supervised(A, B[:5], logit_scale=1.0),
            ValueError,
            r"equal shapes, got a \(6, 4\), b \(5, 4\)",
        ),
        (
            lambda: bare_positive(IDS.astype(jnp.float32)),
            TypeError,
            "ids must be integers, got float32",
        ),
        (lambda: bare_positive(IDS, WHERE[:5]), ValueError, r"where must have shape \(6,\)"),
        (
            lambda: bare_sigmoid(A, B, logit_scale=1.0),
            ValueError,
            "exactly one of logit_bias and relative_bias, got neither",
        ),
        (
            lambda: bare_sigmoid(A, B, logit_scale=1.0, logit_bias=0.0, relative_bias=0.0),
            ValueError,
            "exactly one of logit_bias and relative_bias, got both",
        ),
        (
            lambda: bare_sigmoid(A, B, logit_scale=1.0, logit_bias=0.0, ids=IDS, targets=SQUARE),
            ValueError,
            "expected ids or targets, got both",
        ),
        (
            lambda: bare_sigmoid(A, B, logit_scale=1.0, logit_bias=0.0, targets=jnp.ones((6, 5))),
            ValueError,
            r"targets must have shape \(6, 6\), got \(6, 5\)",
        ),
        (
            lambda: bare_triplet(A, B, mining="easy"),
            ValueError,
            r"mining must be one of \['sum', 'hard', 'semi_hard'\], got 'easy'",
        ),
        (
            lambda: bare_triplet(A, B, distance="l1"),
            ValueError,
            r"distance must be one of \['dot', 'cosine', 'euclidean'\], got 'l1'",
        ),
        (lambda: bare_triplet(A, B, directions="a"), ValueError, "directions must be one of"),
        (lambda: bare_triplet(A, B, margin=jnp.ones(2)), ValueError, "margin must be a scalar"),
        (
            lambda: bare_triplet(A, B, ids=IDS.astype(jnp.float32)),
            TypeError,
            "ids must be integers",
        ),
        (
            lambda: bare_late(T, T[:, :, :3]),
            ValueError,
            r"one width, got shapes \(6, 3, 4\) and \(6, 3, 3\)",
        ),
        (lambda: bare_late(A, T), ValueError, r"a must have shape \[n, t, d\], got \(6, 4\)"),
        (lambda: bare_late(T[:, :0], T), ValueError, r"a must have at least one token, got shape"),
        (
            lambda: bare_late(T, T, b_mask=jnp.ones((6, 2), bool)),
            ValueError,
            r"b_mask must have shape \(6, 3\), got \(6, 2\)",
        ),
        (lambda: bare_late(T, T, a_mask=jnp.ones((6, 3))), TypeError, "a_mask must be boolean"),
        (lambda: bare_late(T, T, reduction="max"), ValueError, "reduction must be one of"),
        (
            lambda: bare_draw(KEY, SQUARE[:, :5]),
            ValueError,
            r"a column for each row, got \(6, 5\)",
        ),
        (lambda: bare_draw(KEY, SQUARE.astype(int)), TypeError, "similarity must be floating"),
        (lambda: bare_draw(KEY, SQUARE, ids=IDS[:5]), ValueError, r"ids must have shape \(6,\)"),
        (lambda: bare_draw(KEY, SQUARE, where=jnp.ones(6)), TypeError, "where must be boolean"),
        (
            lambda: bare_draw(KEY, SQUARE, where=jnp.ones(5, bool)),
            ValueError,
            r"where of shape \(5,\) does not broadcast to \(6, 6\)",
        ),
    ],
)
def test_refuses(run, error, message):
    with pytest.raises(error, match=message):
        run()


def test_every_contrastive_function_is_in_the_room():
    names = functional.contrastive.__all__
    assert set(names) <= set(functional.__all__)


def test_without_a_key_the_hardest_negative_is_the_first_of_the_most_similar():
    similarity = np.float32([[9, 2, 2, 1], [0, 9, -1, 1e-7], [3, 3, 3, 3], [-5, -4, -6, 9]])
    where = np.ones((4, 4), bool)
    where[2, 0] = False
    indices, valid = sample_hard_negatives(None, jnp.asarray(similarity), where=jnp.asarray(where))
    assert indices.tolist() == [1, 3, 1, 1]
    assert valid.all()
