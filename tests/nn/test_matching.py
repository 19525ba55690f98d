"""The matching head: what it fuses, its dtypes and gradients, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.functional import matching_loss
from datarax.nn import ConcatFusion, MatchingHead

A, B = (
    jnp.asarray(np.random.default_rng(seed).normal(size=(5, 3)), jnp.float32) for seed in (0, 1)
)
FUSED = {
    "concat": lambda a, b: [a, b],
    "product": lambda a, b: [a * b],
    "difference": lambda a, b: [abs(a - b)],
    "all": lambda a, b: [a, b, abs(a - b), a * b],
}


@pytest.mark.parametrize("fusion", FUSED)
def test_it_is_a_linear_map_of_the_fused_pair(fusion):
    head = MatchingHead((3, 3), fusion=fusion, rngs=nnx.Rngs(0))
    layer = head.head.output
    fused = np.concatenate(FUSED[fusion](np.asarray(A), np.asarray(B)), axis=-1)
    expected = fused @ np.asarray(layer.kernel[...])[:, 0] + np.asarray(layer.bias[...])
    np.testing.assert_allclose(head(A, B), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(head(A[0], B[0]), expected[0], rtol=1e-5, atol=1e-6)


def test_a_given_module_fuses():
    fusion = ConcatFusion((3, 3), 4, rngs=nnx.Rngs(1))
    head = MatchingHead((3, 3), fusion=fusion, fused_features=4, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(head(A, B), head.head(fusion([A, B]))[:, 0], rtol=1e-6)
    grads = nnx.grad(lambda head: jnp.sum(head(A, B)))(head)
    assert np.any(grads.fusion.projection.kernel[...])


def test_it_computes_in_the_dtype_of_its_input():
    head = MatchingHead((3, 3), hidden_features=4, rngs=nnx.Rngs(0))
    half = head(A.astype(jnp.bfloat16), B.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), head(A, B), atol=5e-2)


def test_identical_and_zero_embeddings_have_finite_gradients():
    head = MatchingHead((3, 3), hidden_features=4, rngs=nnx.Rngs(0))
    for x in (A, jnp.zeros_like(A)):
        grads = jax.jit(jax.grad(lambda a, x=x: jnp.sum(head(a, x))))(x)
        assert np.isfinite(grads).all()


def make(*args, **options):
    return MatchingHead(*args, **options, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: make((3,)), ValueError, r"in_features must be two widths, got \(3,\)"),
        (lambda: make((3, 4)), ValueError, r"'all' needs equal widths, got \(3, 4\)"),
        (lambda: make((3, 3), fusion="sum"), ValueError, "fusion must be one of .*'product'"),
        (lambda: make((3, 3), fused_features=2), ValueError, "fused_features is of a module"),
        (
            lambda: make((3, 3), fusion=ConcatFusion((3, 3), 4, rngs=nnx.Rngs(0))),
            ValueError,
            "needs fused_features",
        ),
        (lambda: make((3, 3))(A, B[:, :2]), ValueError, r"b must have shape \[..., 3\]"),
        (lambda: make((3, 3))(A, jnp.ones(())), ValueError, r"b must have shape \[..., 3\]"),
        (
            lambda: make((3, 3), fusion="product")(A, B[:1]),
            ValueError,
            r"a and b must have equal leading axes, got \(5, 3\) and \(1, 3\)",
        ),
        (lambda: make((3, 3))(A.astype(int), B), TypeError, "a must be floating point"),
        (lambda: make((3, 3))(A.astype(jnp.float16), B), ValueError, "must have one dtype"),
        (lambda: matching_loss(A, targets=A), TypeError, "targets must be boolean"),
        (
            lambda: matching_loss(A, targets=jnp.ones(2, bool)),
            ValueError,
            r"targets of shape \(2,\) does not broadcast to \(5, 3\)",
        ),
        (
            lambda: matching_loss(A.astype(int), targets=jnp.ones(3, bool)),
            TypeError,
            "logits must be floating point",
        ),
    ],
)
def test_what_it_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()
