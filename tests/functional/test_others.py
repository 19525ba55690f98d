"""Edges and errors of masking, similarity, fusion and alignment."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datarax import functional
from datarax.functional import (
    alignment_loss,
    attention_weighted_sum,
    cosine_alignment,
    cosine_similarity,
    gated_sum,
    masked_concatenate,
    masked_logsumexp,
    masked_mean,
    masked_softmax,
    modality_gap,
    pairwise_cosine_similarity,
    pairwise_dot_product,
    pairwise_squared_distance,
    safe_l2_norm,
    safe_l2_normalize,
    squared_error_alignment,
    uniformity,
    weighted_sum,
)


def call(function, *args, **options):
    """Without the run-time type checks of conftest: the errors a user sees."""
    return inspect.unwrap(function)(*args, **options)


@pytest.mark.parametrize("size", [1e-9, 1e30, 1e37])
def test_norms_neither_overflow_nor_vanish(size):
    x = jnp.asarray([3.0, 4.0], jnp.float32) * jnp.float32(size / 10)
    np.testing.assert_allclose(safe_l2_normalize(x), [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(safe_l2_norm(x), 0.5 * size, rtol=1e-6)
    assert jnp.isfinite(jax.grad(safe_l2_norm)(x)).all()


@pytest.mark.parametrize("function", [safe_l2_norm, safe_l2_normalize])
def test_the_zero_vector_has_norm_and_gradient_zero(function):
    value, gradient = jax.value_and_grad(lambda x: function(x).sum())(jnp.zeros(4))
    assert value == 0
    assert not gradient.any()


def test_normalise_does_not_hide_nan():
    assert jnp.isnan(safe_l2_normalize(jnp.asarray([jnp.nan, 1.0]))).all()


def test_softmax_and_logsumexp_far_from_zero():
    x = jnp.asarray([-1000.0, -1001.0, 5000.0])
    keep = jnp.asarray([True, True, False])
    np.testing.assert_allclose(masked_softmax(x, where=keep), [0.731059, 0.268941, 0], atol=1e-5)
    np.testing.assert_allclose(masked_logsumexp(x, where=keep), -999.686738, rtol=1e-6)
    for function in (masked_softmax, masked_logsumexp):
        slope = jax.grad(lambda x, f=function: f(x, where=keep)[..., None].sum() * 2)(x)
        assert jnp.isfinite(slope).all()
        assert slope[2] == 0


def test_softmax_does_not_hide_nan_that_is_kept():
    assert jnp.isnan(masked_softmax(jnp.asarray([jnp.nan, 1.0]))).all()


def test_a_mask_broadcasts():
    x = jnp.arange(6.0).reshape(3, 2)
    keep = jnp.asarray([True, False, True])[:, None]
    np.testing.assert_array_equal(masked_mean(x, where=keep, axis=0), [2.0, 3.0])


def test_float16_means_do_not_overflow():
    x = jnp.full(100, 60000.0, jnp.float16)
    assert masked_mean(x) == jnp.float16(60000)


def test_identical_and_opposite_vectors():
    x = jnp.asarray([1.0, 2.0, 2.0])
    np.testing.assert_allclose(cosine_alignment(x, x), 0, atol=1e-6)
    np.testing.assert_allclose(cosine_alignment(x, -3 * x), 2, rtol=1e-6)
    assert cosine_similarity(x, jnp.zeros(3)) == 0
    assert not pairwise_squared_distance(x[None], x[None]).any()


def test_equal_vectors_align_at_any_power():
    x = jnp.ones((2, 3))
    for power in (0.5, 1.0, 2.0, 3.0):
        value, slope = jax.value_and_grad(lambda a, p=power: alignment_loss(a, x, power=p).sum())(x)
        assert value == 0
        assert not slope.any()
        assert not jax.jacfwd(lambda a, p=power: alignment_loss(a, x, power=p))(x).any()


def test_uniformity_is_zero_for_identical_rows_and_for_one():
    assert uniformity(jnp.ones((4, 3))) == 0
    assert uniformity(jnp.ones((4, 3)), where=jnp.asarray([True, False, False, False])) == 0


def test_weighted_sum_takes_one_weight_a_modality():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2, 3)), jnp.float32)
    expected = 2 * x[:, 0] - x[:, 1]
    np.testing.assert_allclose(weighted_sum(x, jnp.asarray([2.0, -1.0])), expected, rtol=1e-5)


def test_one_modality_left_takes_the_whole_gate():
    hidden = jnp.asarray([[0.3], [0.7]])
    here = jnp.asarray([False, True])
    got = gated_sum(hidden, jnp.zeros((2, 1)), presence=here)
    np.testing.assert_allclose(got, jnp.tanh(hidden[1]), rtol=1e-6)


X, K = jnp.ones((3, 2)), jnp.ones((3, 2), jnp.int32)
NOT_FLOAT = r"must be floating point, got int32 of shape \(3, 2\)"
ERRORS = [
    *[(f, (K,), {}, TypeError, "x " + NOT_FLOAT) for f in (safe_l2_norm, safe_l2_normalize)],
    *[
        row
        for f in (masked_mean, masked_softmax, masked_logsumexp)
        for row in (
            (f, (K,), {}, TypeError, "x " + NOT_FLOAT),
            (f, (X,), {"where": jnp.ones((3, 2))}, TypeError, "where must be boolean"),
            (
                f,
                (X,),
                {"where": jnp.ones(3, bool)},
                ValueError,
                r"\(3,\) does not broadcast to \(3",
            ),
        )
    ],
    *[
        row
        for f in (cosine_similarity, cosine_alignment, squared_error_alignment, alignment_loss)
        for row in (
            (f, (X, K), {}, TypeError, "b " + NOT_FLOAT),
            (f, (X, X[:2]), {}, ValueError, r"equal shapes, got a \(3, 2\), b \(2, 2\)"),
        )
    ],
    *[
        row
        for f in (pairwise_dot_product, pairwise_cosine_similarity, pairwise_squared_distance)
        for row in (
            (f, (X, K), {}, TypeError, "b " + NOT_FLOAT),
            (f, (X, X[:, :1]), {}, ValueError, r"one width, got shapes \(3, 2\) and \(3, 1\)"),
            (f, (X[0], X), {}, ValueError, r"a must have shape \[n, d\], got \(2,\)"),
        )
    ],
    (alignment_loss, (X, X), {"power": 0.0}, ValueError, "power must be positive, got 0.0"),
    (uniformity, (K,), {}, TypeError, "x " + NOT_FLOAT),
    (uniformity, (X[0],), {}, ValueError, r"x must have shape \[n, d\]"),
    (uniformity, (X,), {"t": -1.0}, ValueError, "t must be positive, got -1.0"),
    (uniformity, (X,), {"where": jnp.ones(2, bool)}, ValueError, r"where must have shape \(3,\)"),
    (modality_gap, (X, X[:2]), {}, ValueError, "equal shapes"),
    (modality_gap, (X, X), {"where": jnp.ones(3)}, TypeError, "where must be boolean"),
    (weighted_sum, (K, X), {}, TypeError, "inputs " + NOT_FLOAT),
    (weighted_sum, (X[0], X[0]), {}, ValueError, r"stacked as \[..., m, d\], got shape \(2,\)"),
    (weighted_sum, (X, jnp.ones(2)), {}, ValueError, r"weights of shape \(2,\) does not broad"),
    (attention_weighted_sum, (X, jnp.ones(2)), {}, ValueError, r"scores of shape \(2,\)"),
    (weighted_sum, (X, X[:, 0]), {"presence": X[:, 0]}, TypeError, "presence must be boolean"),
    (gated_sum, (X, X), {"gate": "tanh"}, ValueError, r"gate must be one of \['softmax', 'sigmoid"),
    (gated_sum, (X, X[:2]), {}, ValueError, r"shape of hidden \(3, 2\), got \(2, 2\)"),
    (masked_concatenate, ([],), {}, ValueError, "at least one array, got none"),
    (masked_concatenate, ([X, X[:2]],), {}, ValueError, "inputs must share leading axes"),
    (masked_concatenate, ([X, X.astype(jnp.bfloat16)],), {}, TypeError, "share a dtype"),
    (masked_concatenate, ([X, K],), {}, TypeError, r"inputs\[1\] " + NOT_FLOAT),
    (masked_concatenate, ([X],), {"presence": []}, ValueError, "presence must hold 1 masks, got 0"),
    (masked_concatenate, ([X],), {"presence": [X[0]]}, TypeError, r"presence\[0\] must be boolean"),
]


@pytest.mark.parametrize(
    ("function", "args", "options", "error", "message"),
    ERRORS,
    ids=[f"{row[0].__name__}-{i}" for i, row in enumerate(ERRORS)],
)
def test_refuses(function, args, options, error, message):
    with pytest.raises(error, match=message):
        call(function, *args, **options)


def test_every_public_name_is_exported():
    assert sorted(functional.__all__) == functional.__all__


@pytest.mark.parametrize("eps", [0.0, -1e-6, float("nan")])
def test_layer_norm_refuses_an_eps_that_leaves_a_constant_row_undefined(eps):
    with pytest.raises(ValueError, match=f"eps must be positive, got {eps}"):
        functional.layer_norm(jnp.ones(3), jnp.ones(3), jnp.zeros(3), eps=eps)
