"""Volumes, triangles and multilinear products: their degenerate points and their invariants."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datarax import functional

# The errors are those a user sees: without the run-time type checks of conftest.
bare_volume, bare_gram, bare_triangle, bare_symile = (
    inspect.unwrap(f)
    for f in (
        functional.volume_contrastive,
        functional.gram_volume,
        functional.triangle_area,
        functional.symile,
    )
)
gram_volume = jax.jit(functional.gram_volume)
triangle_area = jax.jit(functional.triangle_area, static_argnames=("root",))
volume_contrastive = jax.jit(functional.volume_contrastive, static_argnames=("shape",))
symile = jax.jit(functional.symile, static_argnames=("negatives",))
SHAPES = ("volume", "triangle", "triangle_root")
X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6, 5)), jnp.float32)


def units(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


@partial(jax.jit, static_argnames=("shape",))
def span_gradient(x, shape):
    """The sum of the losses of x [M, n, d], and its gradient."""

    def total(x):
        return volume_contrastive(list(x), logit_scale=1 / 0.07, shape=shape)[0].sum()

    return jax.value_and_grad(total)(x)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["identical", "parallel", "near", "zero", "rows"])
def test_degenerate_spans_have_finite_gradients(shape, kind):
    one, two, three, noise = units(X)
    x = {
        "identical": jnp.stack([one, one, one]),
        "parallel": jnp.stack([one, -2 * one, 3 * one]),
        "near": jnp.stack([one, one + 1e-4 * two, one - 1e-4 * noise]),
        "zero": jnp.stack([one, jnp.zeros_like(one), three]),
        "rows": jnp.stack([jnp.repeat(y[:1], 6, axis=0) for y in (one, two, three)]),
    }[kind]
    value, slope = span_gradient(x, shape)
    assert jnp.isfinite(value)
    assert jnp.isfinite(slope).all()
    # The gradient of a volume of unit vectors is at most the product of their norms.
    assert jnp.abs(slope).max() < 200 * jnp.abs(x).max() ** 3


def test_volume_agrees_with_the_norm_of_a_component_near_zero():
    with jax.enable_x64(True):
        a = jnp.array([[1.0, 0.0, 0.0]])
        for apart in (1e-6, 1e-4, 1e-2):
            volume = gram_volume(a, [units(jnp.array([[1.0, apart, 0.0]]))])
            sine = apart / np.sqrt(1 + apart**2)
            np.testing.assert_allclose(volume[0, 0], sine, rtol=1e-3 if apart < 1e-5 else 1e-7)


def test_the_root_is_smooth_where_it_is_continued():
    side = np.linspace(0, 4e-3, 400)
    anchor = jnp.asarray(np.stack([np.sqrt(1 - side**2), side], axis=1), jnp.float32)
    volume = np.asarray(gram_volume(anchor, [jnp.array([[1.0, 0.0]])]))[:, 0]
    assert volume[0] == 0
    assert np.all(np.abs(volume - side) < 1.2e-3)
    np.testing.assert_allclose(volume[300:], side[300:], rtol=0.02)

    def at(side):
        anchor = jnp.stack([jnp.sqrt(1 - side**2), side])[None]
        return gram_volume(anchor, [jnp.array([[1.0, 0.0]])])[0, 0]

    slopes = jax.vmap(jax.grad(at))(jnp.array([1.9e-3, 2.0e-3]))
    np.testing.assert_allclose(slopes, 1, atol=0.2)


def test_volume_scales_with_each_vector_and_ignores_the_order_of_the_others():
    def volume(a, b, c):
        return gram_volume(a, [b, c])

    a, b, c = X[:3]
    plain = volume(a, b, c)
    np.testing.assert_allclose(volume(2 * a, 3 * b, c), 6 * plain, rtol=1e-5)
    np.testing.assert_allclose(volume(a, c, b), plain, rtol=1e-5, atol=1e-6)
    sheared = volume(a, b, c + 0.5 * b)
    np.testing.assert_allclose(sheared, plain, rtol=1e-3, atol=1e-4)


def test_volumes_of_large_and_small_vectors_do_not_overflow():
    a, b, c = X[:3]
    plain = gram_volume(a, [b, c])
    np.testing.assert_allclose(gram_volume(1e8 * a, [1e-8 * b, c]), plain, rtol=1e-4)


def test_an_absent_modality_leaves_the_volume_of_the_rest():
    a, b, c = X[:3]
    there = jnp.array([True, False, True, False, True, True])
    got = gram_volume(a, [b, jnp.where(there[:, None], c, jnp.nan)], presence=[there | True, there])
    np.testing.assert_allclose(got[:, ~there], gram_volume(a, [b])[:, ~there], rtol=1e-5)
    np.testing.assert_allclose(got[:, there], gram_volume(a, [b, c])[:, there], rtol=1e-5)


def test_the_squared_triangle_is_the_numbers_of_the_authors_code():
    a, b, c = (np.asarray(x, np.float64) for x in X[:3])
    u, v = a[:, None] - b[None], a[:, None] - c[None]
    expected = ((u**2).sum(2) * (v**2).sum(2) - (u * v).sum(2) ** 2) / 2
    np.testing.assert_allclose(triangle_area(*X[:3], root=False), expected, rtol=1e-4)


def test_a_row_without_enough_modalities_is_not_in_the_batch():
    masks = list(jnp.array([[1, 1, 1], [0, 1, 1], [1, 0, 0], [1, 0, 1], [1, 1, 0]], bool).T)
    x = [y[:5] for y in X[:3]]
    _, triangle = volume_contrastive(x, logit_scale=1.0, presence=masks, shape="triangle")
    np.testing.assert_array_equal(triangle, [True, False, False, False, False])
    for where in (jnp.ones(5, bool), jnp.arange(5) > 2):
        _, volume = volume_contrastive(x, logit_scale=1.0, presence=masks, where=where)
        np.testing.assert_array_equal(volume, where & jnp.array([1, 0, 0, 1, 1], bool))
    _, whole = symile(x, logit_scale=1.0, presence=masks)
    np.testing.assert_array_equal(whole, [True, False, False, False, False])


def test_symile_of_two_modalities_is_info_nce():
    got, used = symile(list(X[:2]), logit_scale=2.0)
    expected = functional.info_nce(X[0], X[1], logit_scale=2.0)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert used.all()


def _shuffled_loss(rows, used, key, *, scale):
    """The loop of the paper for negatives "n": the same permutations, tuple by tuple."""
    n, count = len(rows[0]), len(rows)
    out = np.zeros(n)
    for m, anchor_key in enumerate(jax.random.split(key, count)):
        others = [x for k, x in enumerate(rows) if k != m]
        orders = [
            np.asarray(jax.random.permutation(k, n))
            for k in jax.random.split(anchor_key, len(others))
        ]
        for i in np.flatnonzero(used):
            tuples = [[i] * len(others)]
            for j in range(n):
                drawn = [int(order[j]) for order in orders]
                if j != i and drawn != tuples[0] and used[drawn].all():
                    tuples.append(drawn)
            products = [
                np.prod([x[k] for x, k in zip(others, t, strict=True)], axis=0) for t in tuples
            ]
            logits = [scale * float(rows[m][i] @ p) for p in products]
            out[i] += (np.log(np.sum(np.exp(logits))) - logits[0]) / count
    return out


@pytest.mark.parametrize("count", [2, 3])
def test_shuffled_negatives_match_their_loop(count):
    rows = [np.asarray(x, np.float64) for x in X[:count]]
    presence = [jnp.arange(6) != m for m in range(count)]
    for seed in range(3):
        key = jax.random.key(seed)
        got, used = symile(
            list(X[:count]), logit_scale=0.5, negatives="n", key=key, presence=presence
        )
        expected = _shuffled_loss(rows, np.asarray(used), key, scale=0.5)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_garbage_of_incomplete_rows_does_not_reach_shuffled_negatives():
    masks = list(jnp.ones((3, 6), bool).at[1, 2].set(False).at[2, 4].set(False))
    key = jax.random.key(3)

    @jax.jit
    def run(x):
        def total(x):
            return symile(list(x), logit_scale=1.0, negatives="n", key=key, presence=masks)[0].sum()

        return jax.value_and_grad(total)(x)

    value, slope = run(X[:3])
    dirty, dirty_slope = run(X[:3].at[1, 2].set(jnp.nan).at[2, 4].set(jnp.inf))
    np.testing.assert_array_equal(dirty, value)
    np.testing.assert_array_equal(dirty_slope, slope)
    assert not slope[:, jnp.array([2, 4])].any()


ALL = list(X[:3])


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (
            lambda: bare_volume(ALL[:1], logit_scale=1.0),
            ValueError,
            "embeddings must hold at least 2 modalities, got 1",
        ),
        (
            lambda: bare_volume(ALL[:2], logit_scale=1.0, shape="triangle"),
            ValueError,
            "shape='triangle' needs 3 modalities, got 2",
        ),
        (
            lambda: bare_volume(ALL, logit_scale=1.0, shape="cube"),
            ValueError,
            r"shape must be one of \['volume', 'triangle', 'triangle_root'\], got 'cube'",
        ),
        (
            lambda: bare_volume(ALL, logit_scale=1.0, where=jnp.ones(6)),
            TypeError,
            "where must be boolean",
        ),
        (lambda: bare_gram(X[0], []), ValueError, "others must hold at least 1 modalities, got 0"),
        (
            lambda: bare_gram(X[0, :, :4], ALL[1:]),
            ValueError,
            r"expected equal widths, got anchor \(6, 4\), others \(6, 5\)",
        ),
        (
            lambda: bare_gram(X[0], ALL[1:], presence=[jnp.ones(6, bool)]),
            ValueError,
            "presence must hold 2 masks, got 1",
        ),
        (
            lambda: bare_triangle(X[0], X[1], X[2, :5]),
            ValueError,
            r"equal shapes, got b \(6, 5\), c \(5, 5\)",
        ),
        (
            lambda: bare_triangle(X[0], X[1], X[2].astype(int)),
            TypeError,
            "c must be floating point, got int32",
        ),
        (
            lambda: bare_symile(ALL, logit_scale=1.0, negatives="n"),
            ValueError,
            "negatives='n' draws permutations: give a key, got None",
        ),
        (
            lambda: bare_symile(ALL, logit_scale=1.0, key=jax.random.key(0)),
            ValueError,
            "negatives='n_squared' draws nothing: key must be None",
        ),
        (
            lambda: bare_symile(ALL, logit_scale=1.0, negatives="all"),
            ValueError,
            r"negatives must be one of \['n_squared', 'n'\], got 'all'",
        ),
        (
            lambda: bare_symile(ALL[:1], logit_scale=1.0),
            ValueError,
            "embeddings must hold at least 2 modalities, got 1",
        ),
        (
            lambda: bare_symile(ALL, logit_scale=jnp.ones(3)),
            ValueError,
            "logit_scale must be a scalar",
        ),
    ],
)
def test_refuses(run, error, message):
    with pytest.raises(error, match=message):
        run()
