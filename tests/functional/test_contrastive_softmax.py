"""InfoNCE with halves, extra columns, a decoupled denominator and ready similarities."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from datarax import functional
from datarax.functional import nt_xent, pairwise_dot_product

# The errors are those a user sees: without the run-time type checks of conftest.
bare, bare_similarity, bare_two_view, bare_pairs = (
    inspect.unwrap(f)
    for f in (
        functional.info_nce,
        functional.info_nce_from_similarity,
        functional.nt_xent,
        functional.pairwise_multimodal,
    )
)
CHOICES = ("directions", "label_smoothing", "decoupled")
info_nce = jax.jit(functional.info_nce, static_argnames=CHOICES)
info_nce_from_similarity = jax.jit(functional.info_nce_from_similarity, static_argnames=CHOICES)
pairwise_multimodal = jax.jit(functional.pairwise_multimodal, static_argnames=("pairs",))


def embeddings(n=6, d=4, count=2, seed=0):
    return list(jnp.asarray(np.random.default_rng(seed).normal(size=(count, n, d)), jnp.float32))


def test_a_similarity_gives_the_loss_of_its_embeddings():
    a, b = embeddings()
    options = {"logit_scale": 3.0, "logit_bias": 0.5, "label_smoothing": 0.1}
    options["ids"] = jnp.array([1, 1, 2, 3, 4, 2])
    got = info_nce_from_similarity(pairwise_dot_product(a, b), **options)
    np.testing.assert_allclose(got, info_nce(a, b, **options), rtol=1e-6)


def test_a_reverse_similarity_serves_its_own_direction():
    a, b = embeddings(n=4)
    forward, backward = jnp.asarray(a[:, :4]), jnp.asarray(b[:, :4])
    both = info_nce_from_similarity(forward, backward, logit_scale=2.0)
    rows = info_nce_from_similarity(forward, logit_scale=2.0, directions="a_to_b")
    columns = info_nce_from_similarity(backward, logit_scale=2.0, directions="a_to_b")
    np.testing.assert_allclose(both, (rows + columns) / 2, rtol=1e-6)
    turned = info_nce_from_similarity(backward.T, logit_scale=2.0, directions="b_to_a")
    np.testing.assert_allclose(turned, columns, rtol=1e-6)


def test_garbage_in_removed_entries_of_a_similarity_reaches_nothing():
    (a,) = embeddings(d=6, count=1)
    where = jnp.array([True, False, True, True, True, False])
    pairs = where[:, None] & where[None, :]

    def total(x, scale):
        return info_nce_from_similarity(x, logit_scale=scale, where=where).sum()

    clean = jax.value_and_grad(total, (0, 1))(a, 2.0)
    dirty = jax.value_and_grad(total, (0, 1))(jnp.where(pairs, a, jnp.nan), 2.0)
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)


def test_a_half_without_its_partner_is_a_negative_and_has_no_loss():
    a, b = embeddings()
    where_b = jnp.array([True, True, False, True, True, True])
    spoiled = b.at[2].set(jnp.nan)
    value = info_nce(a, spoiled, logit_scale=1.0, where_b=where_b)
    assert value[2] == 0
    to_a = info_nce(a, spoiled, logit_scale=1.0, where_b=where_b, directions="b_to_a")
    np.testing.assert_allclose(
        to_a[where_b], info_nce(a, b, logit_scale=1.0, directions="b_to_a")[where_b], rtol=1e-5
    )
    slopes = jax.grad(lambda a, b: info_nce(a, b, logit_scale=1.0, where_b=where_b).sum(), (0, 1))(
        a, spoiled
    )
    assert slopes[0][2].any()
    assert not slopes[1][2].any()


def test_extra_columns_are_negatives_of_their_direction():
    a, b = embeddings()
    more = embeddings(n=3, count=1, seed=1)[0]
    logits = np.asarray(a) @ np.concatenate([b, more]).T
    expected = np.log(np.exp(logits).sum(axis=1)) - np.diagonal(logits)
    options = {"logit_scale": 1.0, "negatives_b": more}
    got = info_nce(a, b, directions="a_to_b", **options)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    both = info_nce(a, b, **options)
    other = info_nce(a, b, logit_scale=1.0, directions="b_to_a")
    np.testing.assert_allclose(both, (got + other) / 2, rtol=1e-5)
    none = info_nce(a, b, negatives_where=jnp.zeros(3, bool), **options)
    np.testing.assert_allclose(none, info_nce(a, b, logit_scale=1.0), rtol=1e-6)


def test_gradients_flow_into_extra_columns():
    a, b = embeddings()
    more = embeddings(n=3, count=1, seed=1)[0]
    slope = jax.grad(lambda x: info_nce(a, b, logit_scale=1.0, negatives_a=x).sum())(more)
    assert jnp.abs(slope).min() > 0


def test_an_extra_column_with_the_id_of_a_row_is_its_positive():
    a = jnp.eye(2)
    options = {"logit_scale": 9.0, "ids": jnp.array([5, 7]), "negatives_b": a[:1]}
    apart = info_nce(a, a, negatives_ids=jnp.array([8]), **options)
    shared = info_nce(a, a, negatives_ids=jnp.array([5]), **options)
    # Row 0 has an equal extra column: one of two in its direction, half of the loss.
    np.testing.assert_allclose(apart[0], np.log(2) / 2, atol=1e-3)
    np.testing.assert_allclose(shared[0], np.log(2) / 2, atol=1e-3)
    opposite = {**options, "negatives_b": -a[:1]}
    far = info_nce(a, a, negatives_ids=jnp.array([5]), **opposite)
    np.testing.assert_allclose(far[0], 9 / 2, atol=1e-3)


def test_ids_of_another_width_are_compared_without_wrapping():
    a = jnp.eye(2)
    options = {"logit_scale": 9.0, "negatives_b": -a[:1], "negatives_ids": jnp.array([261])}
    narrow = info_nce(a, a, ids=jnp.array([5, 7], jnp.uint8), **options)
    np.testing.assert_allclose(narrow, info_nce(a, a, ids=jnp.array([5, 7]), **options))


def test_two_views_may_differ_in_dtype():
    a = jnp.eye(3)
    mixed = nt_xent(a.astype(jnp.bfloat16), a, logit_scale=2.0)
    np.testing.assert_allclose(mixed, nt_xent(a, a, logit_scale=2.0), rtol=1e-6)


def test_a_decoupled_row_without_negatives_is_zero():
    def loss(a, b):
        return info_nce(a, b, logit_scale=5.0, decoupled=True, ids=jnp.full(6, 3)).sum()

    value, slopes = jax.value_and_grad(loss, (0, 1))(*embeddings())
    assert value == 0
    assert not any(x.any() for x in slopes)


def test_decoupled_is_info_nce_without_the_positive_in_the_sum():
    a, b = embeddings()
    logits = 2 * np.asarray(a, np.float64) @ np.asarray(b, np.float64).T
    full = np.log(np.exp(logits).sum(axis=1))
    positive = np.diagonal(logits)
    whole = info_nce(a, b, logit_scale=2.0, directions="a_to_b")
    left = info_nce(a, b, logit_scale=2.0, directions="a_to_b", decoupled=True)
    share = np.log1p(-np.exp(positive - full))
    np.testing.assert_allclose(np.asarray(left) - np.asarray(whole), share, rtol=1e-4, atol=1e-5)


def test_nt_xent_is_that_of_optax():
    a, b = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in embeddings(n=5, d=8))
    labels = jnp.concatenate([jnp.arange(5), jnp.arange(5)])

    def ours(a, b):
        return nt_xent(a, b, logit_scale=1 / 0.2).mean()

    def theirs(a, b):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return optax.ntxent(jnp.concatenate([a, b]), labels, temperature=0.2)

    value, slopes = jax.jit(jax.value_and_grad(ours, (0, 1)))(a, b)
    expected, wanted = jax.jit(jax.value_and_grad(theirs, (0, 1)))(a, b)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    # optax divides by the norms, which takes the radial part out of the gradient.
    for x, got, slope in zip((a, b), slopes, wanted, strict=True):
        tangent = got - jnp.sum(got * x, axis=1, keepdims=True) * x
        np.testing.assert_allclose(tangent, slope, rtol=1e-4, atol=1e-6)


def test_equal_pair_weights_change_nothing_and_zero_drops_a_pair():
    x = embeddings(count=3)
    plain, _ = pairwise_multimodal(x, logit_scale=2.0)
    weighed, _ = pairwise_multimodal(x, logit_scale=2.0, pair_weights=jnp.full(3, 7.0))
    np.testing.assert_allclose(weighed, plain, rtol=1e-6)
    first, used = pairwise_multimodal(
        x, logit_scale=jnp.array([2.0, 9.0, 9.0]), pair_weights=jnp.array([3.0, 0.0, 0.0])
    )
    np.testing.assert_allclose(first, info_nce(x[0], x[1], logit_scale=2.0), rtol=1e-6)
    assert used.all()
    _, none = pairwise_multimodal(x, logit_scale=2.0, pair_weights=jnp.zeros(3))
    assert not none.any()


def test_pairs_with_the_anchor_take_scales_in_their_order():
    x = embeddings(count=3)
    scales = jnp.array([1.0, 4.0])
    got, _ = pairwise_multimodal(x, logit_scale=scales, pairs="anchor")
    parts = [info_nce(x[0], x[m], logit_scale=s) for m, s in ((1, 1.0), (2, 4.0))]
    np.testing.assert_allclose(got, (parts[0] + parts[1]) / 2, rtol=1e-6)


A, B = embeddings()
MORE = jnp.ones((3, 4))
REFUSED = [
    ({"negatives_b": MORE[:, :3]}, ValueError, r"negatives_b must have shape \[k, 4\], got \(3, 3"),
    ({"negatives_b": MORE[0]}, ValueError, r"negatives_b must have shape \[k, 4\], got \(4,\)"),
    ({"negatives_a": MORE.astype(int)}, TypeError, "negatives_a must be floating point, got int32"),
    ({"negatives_a": MORE, "negatives_b": MORE[:2]}, ValueError, "negatives_b must be as many"),
    ({"negatives_b": MORE, "directions": "b_to_a"}, ValueError, "read by direction 'a_to_b', got"),
    ({"negatives_a": MORE, "directions": "a_to_b"}, ValueError, "read by direction 'b_to_a', got"),
    ({"negatives_where": jnp.ones(3, bool)}, ValueError, r"shape \(0,\), got \(3,\)"),
    ({"negatives_ids": jnp.ones(3, int)}, ValueError, "need negatives_a or negatives_b"),
    ({"negatives_b": MORE, "negatives_ids": jnp.ones(3, int)}, ValueError, "need ids to compare"),
    (
        {"negatives_b": MORE, "ids": jnp.ones(6, int), "negatives_ids": jnp.ones(2, int)},
        ValueError,
        r"negatives_ids must have shape \(3,\), got \(2,\)",
    ),
    (
        {"negatives_b": MORE, "ids": jnp.ones(6, int), "negatives_ids": jnp.ones(3)},
        TypeError,
        "negatives_ids must be integers, got float32",
    ),
    ({"negatives_b": MORE, "negatives_where": jnp.ones(3)}, TypeError, "negatives_where must be b"),
    ({"where_a": jnp.ones(5, bool)}, ValueError, r"where_a must have shape \(6,\), got \(5,\)"),
    ({"where_b": jnp.ones(6)}, TypeError, "where_b must be boolean"),
    ({"decoupled": True, "label_smoothing": 0.1}, ValueError, "no target to smooth.*got 0.1"),
]


@pytest.mark.parametrize(("options", "error", "message"), REFUSED)
def test_info_nce_refuses(options, error, message):
    with pytest.raises(error, match=message):
        bare(A, B, logit_scale=1.0, **options)


@pytest.mark.parametrize(
    ("similarity", "options", "error", "message"),
    [
        (A, {}, ValueError, r"similarity must be square \[n, n\], got \(6, 4\)"),
        (A[0], {}, ValueError, r"similarity must have shape \[n, n\], got \(4,\)"),
        (jnp.ones((6, 6), int), {}, TypeError, "similarity must be floating point, got int32"),
        (jnp.eye(6), {"reverse": jnp.eye(5)}, ValueError, r"reverse must have shape \(6, 6\)"),
        (
            jnp.eye(6),
            {"reverse": jnp.eye(6), "directions": "a_to_b"},
            ValueError,
            "reverse is read by direction 'b_to_a', got 'a_to_b'",
        ),
        (jnp.eye(6), {"negatives_b": jnp.ones((5, 2))}, ValueError, r"shape \[6, k\], got \(5, 2"),
        (jnp.eye(6), {"logit_scale": jnp.ones(2)}, ValueError, "logit_scale must be a scalar"),
        (jnp.eye(6), {"directions": "up"}, ValueError, "directions must be one of .* got 'up'"),
    ],
)
def test_info_nce_from_similarity_refuses(similarity, options, error, message):
    arguments = {"logit_scale": 1.0} | options
    with pytest.raises(error, match=message):
        bare_similarity(similarity, arguments.pop("reverse", None), **arguments)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"b": B[:5]}, ValueError, r"equal shapes, got a \(6, 4\), b \(5, 4\)"),
        ({"where": jnp.ones(6)}, TypeError, "where must be boolean"),
        ({"logit_scale": jnp.ones(2)}, ValueError, "logit_scale must be a scalar"),
    ],
)
def test_nt_xent_refuses(options, error, message):
    arguments = {"b": B, "logit_scale": 1.0} | options
    with pytest.raises(error, match=message):
        bare_two_view(A, arguments.pop("b"), **arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"logit_scale": jnp.ones(2)}, r"logit_scale must be a scalar or .* \(3,\), got \(2,\)"),
        ({"logit_bias": jnp.ones(4)}, r"logit_bias must be a scalar or .* \(3,\), got \(4,\)"),
        ({"pair_weights": jnp.ones(2)}, r"pair_weights must have shape \(3,\), got \(2,\)"),
        ({"relative_bias": 0.1}, "relative_bias belongs to loss='sigmoid', got loss='info_nce'"),
        (
            {"loss": "sigmoid", "logit_bias": 0.0, "decoupled": True},
            "takes neither directions nor label_smoothing nor decoupled",
        ),
        ({"loss": "sigmoid", "logit_bias": 0.0, "relative_bias": 0.1}, "exactly one of logit_bias"),
    ],
)
def test_pairwise_refuses_what_does_not_fit_its_pairs(options, message):
    with pytest.raises(ValueError, match=message):
        bare_pairs(embeddings(count=3), **({"logit_scale": 1.0} | options))
