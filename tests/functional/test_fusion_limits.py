"""Limits, extreme numbers and errors of the fusions' functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datarax import functional


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@jax.jit
def experts(means, log_variances):
    def total(means, log_variances):
        parts = functional.product_of_experts(means, log_variances)
        mixed = functional.mixture_of_experts(means, log_variances)
        return sum(jnp.sum(x) for x in (*parts, *mixed)), (parts, mixed)

    (_, values), gradients = jax.value_and_grad(total, (0, 1), has_aux=True)(means, log_variances)
    return values, gradients


@pytest.mark.parametrize("extremes", [(100, 100), (-100, -100), (100, -100), (0, 100)])
def test_experts_of_extreme_variance_are_finite(extremes):
    means = jnp.asarray([[2.0], [-3.0]])
    values, gradients = experts(means, jnp.asarray(extremes, jnp.float32)[:, None])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((values, gradients)))
    (mean, log_variance), (mixed, _) = values
    sharp = [float(m) for m, v in zip(means[:, 0], extremes, strict=True) if v == -100]
    prior = 1.0 if extremes == (0, 100) else 0.0
    expected = np.mean(sharp) if sharp else prior  # an expert of infinite variance counts nothing
    np.testing.assert_allclose(mean, [expected], rtol=1e-6, atol=1e-6)
    precision = {(100, 100): 0.0, (0, 100): -np.log(2), (100, -100): -100.0}
    wanted = precision.get(extremes, -100 - np.log(2))
    np.testing.assert_allclose(log_variance, [wanted], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(mixed, [-0.5], rtol=1e-6)


def test_high_order_pooling_of_one_stage_and_pooling_of_rank_one():
    x = normal(5, 3, 6)
    one = functional.mfh_product(x[:, None], rank=2)
    np.testing.assert_array_equal(one, functional.mfb_product(x, rank=2))
    for product in (functional.mfb_product, functional.mutan_product):
        np.testing.assert_array_equal(product(x, rank=1), functional.hadamard_product(x))
    block = functional.block_product([x], rank=2)
    np.testing.assert_array_equal(block, functional.mutan_product(x, rank=2))


def test_the_signed_root_is_flat_at_zero_and_steep_beside_it():
    slope = jax.vmap(jax.grad(functional.signed_sqrt))(jnp.asarray([0.0, 1e-45, 0.25, -0.25]))
    np.testing.assert_allclose(slope, [0, 0, 1, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f: f.hadamard_product(normal(1, 3)), ValueError, "at least 2 modalities"),
        (
            lambda f: f.hadamard_product(jnp.ones((2, 3), int)),
            TypeError,
            "factors must be floating",
        ),
        (lambda f: f.mfb_product(normal(2, 3), rank=2), ValueError, "rank must .* divide .* got 2"),
        (lambda f: f.mutan_product(normal(2, 4), rank=0), ValueError, "rank must be positive"),
        (lambda f: f.mfh_product(normal(2, 4), rank=2), ValueError, "stages, m, k"),
        (lambda f: f.block_product([], rank=2), ValueError, "chunks must hold at least one"),
        (lambda f: f.tucker_product(normal(3, 2), normal(2, 2, 1)), ValueError, "exactly 2"),
        (lambda f: f.outer_product([normal(2)]), ValueError, "at least 2 modalities, got 1"),
        (lambda f: f.outer_product([normal(2), normal(3, 2)]), ValueError, "share leading axes"),
        (
            lambda f: f.low_rank_tensor([normal(2), normal(2)], [normal(1, 3, 1)]),
            ValueError,
            "factors must hold 2 arrays, got 1",
        ),
        (
            lambda f: f.low_rank_tensor([normal(2)] * 2, [normal(1, 3, 1), normal(1, 2, 1)]),
            ValueError,
            r"factors\[1\] must have shape \(1, 3, 1\), got \(1, 2, 1\)",
        ),
        (
            lambda f: f.product_of_experts(normal(1, 2), normal(1, 2)),
            ValueError,
            "at least 2 modalities",
        ),
        (
            lambda f: f.product_of_experts(normal(2, 2), normal(2, 3)),
            ValueError,
            "expected equal shapes",
        ),
        (lambda f: f.gated_product(normal(2), normal(3)), ValueError, "expected equal shapes"),
        (
            lambda f: f.layer_norm(normal(2), jnp.ones(2), jnp.ones(2, int)),
            TypeError,
            "bias must be floating",
        ),
    ],
)
def test_functions_refuse(call, error, message):
    with pytest.raises(error, match=message):
        call(functional)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": jnp.ones(2)}, r"interaction of form 'matrix' must have shape \(2, 3, 2\)"),
        ({"from_x": jnp.ones((3, 1))}, r"from_x of form 'matrix' must have shape \(2, 1\)"),
    ],
)
def test_multiplicative_interaction_refuses(change, message):
    parameters = {
        "interaction": normal(2, 3, 1),
        "from_x": normal(2, 1),
        "from_y": normal(3, 1),
        "bias": normal(1),
    }
    with pytest.raises(ValueError, match=message):
        functional.multiplicative_interaction(normal(2), normal(3), **(parameters | change))
