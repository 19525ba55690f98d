"""Canonical correlation beside cca_zoo, and its gradient at every spectrum."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alignment_inputs import call, normal, orthogonal, whitened

from datarax.functional import cca_loss

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cca_zoo.linear import CCA, GCCA, MCCA


VIEWS = [normal(60, 3), normal(60, 4, seed=1), normal(60, 3, seed=2)]
VIEWS = [x + normal(60, 1, seed=9) for x in VIEWS]


def correlations(model, views):
    """Of the scores that a model of cca_zoo gives, component by component and pair by pair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = model.fit(views).transform(views)
    return np.array(
        [
            [np.corrcoef(p[:, k], q[:, k])[0, 1] for q in scores for p in scores]
            for k in range(scores[0].shape[1])
        ]
    )


@pytest.mark.parametrize(("objective", "power"), [("sum", 1), ("sum_squares", 2)])
def test_cca_is_that_of_cca_zoo(objective, power):
    rho = correlations(CCA(n_components=3), VIEWS[:2])[:, 1]
    with jax.enable_x64(True):
        views = [jnp.asarray(x) for x in VIEWS[:2]]
        value = call(cca_loss, views, objective=objective, ridge=0.0)
        np.testing.assert_allclose(value, -np.sum(np.abs(rho) ** power), rtol=1e-9)


def test_gcca_is_that_of_cca_zoo():
    """The shared latent of linear GCCA holds the top eigenvectors of the sum of projections."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = GCCA(n_components=2).fit(VIEWS)
    centered = [x - x.mean(0) for x in VIEWS]
    latent = np.linalg.qr(sum(x @ w for x, w in zip(centered, model.weights_, strict=True)))[0]
    explained = sum(np.sum((x @ np.linalg.pinv(x) @ latent) * latent) for x in centered)
    with jax.enable_x64(True):
        value = call(
            cca_loss, [jnp.asarray(x) for x in VIEWS], form="gcca", components=2, ridge=0.0
        )
        np.testing.assert_allclose(value, -explained, rtol=1e-9)


def test_two_views_of_gcca_and_of_mcca_are_cca():
    """The eigenvalues of a sum of two projections are 1 plus the canonical correlations."""
    rho = np.abs(correlations(MCCA(n_components=3), VIEWS[:2])[:, 1])
    with jax.enable_x64(True):
        value = call(cca_loss, [jnp.asarray(x) for x in VIEWS[:2]], form="gcca", ridge=0.0)
        np.testing.assert_allclose(value, -np.sum(1 + rho), rtol=1e-8)


def test_more_views_are_the_sum_over_pairs():
    with jax.enable_x64(True):
        a, b, c = (jnp.asarray(x) for x in VIEWS)
        pairs = call(cca_loss, [a, b]) + call(cca_loss, [a, c]) + call(cca_loss, [b, c])
        np.testing.assert_allclose(call(cca_loss, [a, b, c]), pairs, rtol=1e-12)


def test_the_minimum_of_eckart_young_is_that_of_its_docstring():
    """Among linear maps, at the canonical directions scaled to the variance 1 + rho."""
    left, right = whitened(normal(50, 2)), whitened(normal(50, 2, seed=1) + normal(50, 1, seed=9))
    u, rho, vt = np.linalg.svd(left.T @ right / 50)
    scale = np.sqrt((1 + rho) * 49 / 50)
    with jax.enable_x64(True):

        def loss(maps):
            return call(cca_loss, [left @ maps[0], right @ maps[1]], form="ey")

        maps = [jnp.asarray(u * scale), jnp.asarray(vt.T * scale)]
        value, gradient = call(jax.value_and_grad(loss), maps)
        np.testing.assert_allclose(value, -np.sum((1 + rho) ** 2), rtol=1e-9)
        assert all(np.abs(g).max() < 1e-12 for g in gradient)


FORMS = [
    {"form": "pairs"},
    {"form": "pairs", "objective": "sum"},
    {"form": "gcca"},
    {"form": "ey"},
]
named = pytest.mark.parametrize("options", FORMS, ids=lambda o: "-".join(o.values()))


@pytest.mark.parametrize(("options", "per_rank"), [(FORMS[0], 1), (FORMS[1], 1), (FORMS[2], 2)])
def test_a_linear_image_has_full_correlation(options, per_rank):
    x = normal(40, 4)
    with jax.enable_x64(True):
        value = call(
            cca_loss, [jnp.asarray(x), jnp.asarray(x @ normal(4, 4))], ridge=0.0, **options
        )
        np.testing.assert_allclose(value, -4 * per_rank, rtol=1e-9)


def _degenerate():
    x = normal(12, 3)
    white = whitened(x)
    yield "identical", [x, x]
    yield "whitened", [white, white @ orthogonal(3)]
    yield "uncorrelated", [whitened(normal(12, 6))[:, :3], whitened(normal(12, 6))[:, 3:]]
    yield "zero column", [x * [1, 0, 1], normal(12, 3, seed=1)]
    yield "duplicate column", [x[:, [0, 0, 1]], normal(12, 3, seed=1)]
    yield "few rows", [normal(2, 3), normal(2, 3, seed=1)]
    yield "square", [normal(3, 3), normal(3, 3, seed=1)]
    yield "zero", [np.zeros((5, 3)), np.zeros((5, 3))]
    yield "far and large", [1e3 * x + 1e5, 1e-6 * normal(12, 3, seed=1)]


DEGENERATE = dict(_degenerate())


@named
def test_gradients_are_finite_at_every_spectrum(options):
    @jax.jit
    def both_modes(views):
        loss = partial(cca_loss, ridge=0.0 if options["form"] != "ey" else 1e-4, **options)
        slope = jax.jvp(loss, (views,), ([jnp.ones_like(x) for x in views],))[1]
        return *jax.value_and_grad(loss)(views), slope

    for name, views in DEGENERATE.items():
        value, gradients, slope = both_modes([jnp.asarray(x, jnp.float32) for x in views])
        assert np.isfinite(value), name
        assert np.isfinite(slope), name
        assert all(np.isfinite(g).all() for g in gradients), name


def test_the_gradient_of_whitened_views_is_that_of_a_difference():
    """Where the eigen form gives NaN: all correlations equal."""
    with jax.enable_x64(True):
        x = jnp.asarray(whitened(normal(20, 3)))
        y = x @ jnp.asarray(orthogonal(3)) + 0.5 * jnp.asarray(whitened(normal(20, 3, seed=3)))
        step = jnp.asarray(normal(20, 3, seed=4))
        for options in FORMS[:3]:
            loss = jax.jit(lambda a, o=options: call(cca_loss, [a, y], ridge=0.1, **o))
            slope = jnp.sum(jax.grad(loss)(x) * step)
            numeric = (loss(x + 1e-6 * step) - loss(x - 1e-6 * step)) / 2e-6
            np.testing.assert_allclose(slope, numeric, rtol=1e-6, atol=1e-8)


def test_as_many_columns_as_rows_take_the_form_without_inverse():
    square = [jnp.asarray(normal(4, 4, seed=i), jnp.float32) for i in (0, 1)]
    assert call(cca_loss, square) == call(cca_loss, square, form="ey")
    tall = [jnp.asarray(normal(5, 4, seed=i), jnp.float32) for i in (0, 1)]
    assert call(cca_loss, tall) == call(cca_loss, tall, form="pairs")
    uneven = [square[0], square[1][:, :3]]
    assert call(cca_loss, uneven) == call(cca_loss, uneven, form="pairs")
    assert call(cca_loss, square, objective="sum") == call(
        cca_loss, square, form="pairs", objective="sum"
    )
