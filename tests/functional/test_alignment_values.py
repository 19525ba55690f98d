"""Limits of the alignment losses, and their values beside optax and scipy."""

from functools import partial

import alignment_oracles as loop
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
from alignment_inputs import call, normal, orthogonal, whitened

from datarax.functional import (
    VICRegTerms,
    alignment_loss,
    barlow_twins,
    cca_loss,
    centroid_uniformity,
    cka,
    cross_modal_consistency,
    hsic,
    huber_alignment,
    in_modal_consistency,
    modality_gap,
    orthogonal_map,
    procrustes_residual,
    procrustes_transform,
    relational_angle,
    relational_distance,
    similarity_distillation,
    similarity_matching,
    vicreg,
    vicreg_terms,
)

VARIANTS = {
    "huber": (partial(huber_alignment, delta=0.5), loop.huber(0.5), (3, 3)),
    "centroid_uniformity": (centroid_uniformity, loop.centroid_uniformity, (3, 3)),
    "barlow pooled": (
        partial(barlow_twins, ddof=1, statistics="pooled", redundancy_weight=0.5),
        loop.barlow_twins(ddof=1, pooled=True, weight=0.5),
        (3, 3),
    ),
    "cca sum": (
        lambda *views, where: cca_loss(
            views, form="pairs", objective="sum", ridge=0.1, where=where
        ),
        loop.cca(ridge=0.1, power=1),
        (3, 2, 3),
    ),
    "gcca": (
        lambda *views, where: cca_loss(views, form="gcca", ridge=0.1, where=where),
        loop.gcca(ridge=0.1, components=2),
        (3, 2, 3),
    ),
    "hsic": (hsic, loop.hsic(), (3, 2)),
    "hsic debiased": (
        partial(hsic, kernel="rbf", bandwidth=1, debiased=True),
        loop.hsic(kernel="rbf", bandwidth=1, debiased=True),
        (3, 2),
    ),
    "cka": (cka, loop.cka(), (3, 2)),
    "cka debiased": (partial(cka, debiased=True), loop.cka(debiased=True), (3, 2)),
    "divergence": (
        lambda a, b, s, t, **keys: similarity_distillation(
            a,
            b,
            teacher_a=s,
            teacher_b=t,
            logit_scale=2,
            teacher_logit_scale=3.0,
            subtract_entropy=True,
            **keys,
        ),
        loop.similarity_distillation(scale=2, teacher_scale=3, subtract_entropy=True),
        (3, 3, 2, 2),
    ),
    "procrustes": (procrustes_residual, loop.procrustes(), (3, 3)),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_match_the_loop_of_the_paper(name):
    run, reference, widths = VARIANTS[name]
    arrays = [normal(9, d, seed=i) for i, d in enumerate(widths)]
    keep = np.array([1, 1, 0, 1, 1, 0, 1, 1, 1], bool)
    with jax.enable_x64(True):
        where = {} if name == "huber" else {"where": jnp.asarray(keep)}
        value = jax.jit(run)(*map(jnp.asarray, arrays), **where)
        expected = reference(*arrays, keep if where else None, None)
        np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-12)


def test_huber_is_that_of_optax():
    a, b = 3 * normal(5, 4), normal(5, 4, seed=1)
    with jax.enable_x64(True):
        expected = optax.huber_loss(jnp.asarray(a), jnp.asarray(b), delta=1.5).mean(-1)
        np.testing.assert_allclose(
            call(huber_alignment, jnp.asarray(a), jnp.asarray(b), delta=1.5), expected, rtol=1e-12
        )


def test_vicreg_is_the_weighted_sum_of_its_terms():
    a, b = (jnp.asarray(normal(6, 3, seed=i), jnp.float32) for i in (0, 1))
    terms = call(vicreg_terms, a, b)
    assert isinstance(terms, VICRegTerms)
    value = call(vicreg, a, b, invariance_weight=2, variance_weight=3, covariance_weight=5)
    expected = 2 * terms.invariance + 3 * terms.variance + 5 * terms.covariance
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_barlow_twins_is_zero_for_whitened_identical_views():
    x = jnp.asarray(whitened(normal(32, 4)), jnp.float32)
    np.testing.assert_allclose(call(barlow_twins, x, 7 * x + 3), 0, atol=1e-6)
    assert call(barlow_twins, x, x + 3, statistics="pooled") > 0.1


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("function", [vicreg, barlow_twins])
def test_few_rows_and_constant_columns_have_finite_gradients(function, rows):
    x = jnp.asarray(normal(rows, 3), jnp.float32).at[:, 1].set(2.0)
    value, gradient = jax.jit(jax.value_and_grad(lambda a: function(a, x + 1)))(x)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("debiased", [False, True])
def test_cka_is_one_for_a_rotation(kernel, debiased):
    x = normal(20, 4)
    with jax.enable_x64(True):
        turned = jnp.asarray(3 * x @ orthogonal(4) + 7)
        value = call(cka, jnp.asarray(x), turned, kernel=kernel, debiased=debiased)
        np.testing.assert_allclose(value, 1, rtol=1e-12)


def test_debiased_hsic_has_mean_zero_for_independent_features():
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.normal(size=(400, 8, 5)), jnp.float32) for _ in range(2))

    def spread(debiased):
        values = jax.jit(jax.vmap(partial(hsic, debiased=debiased)))(a, b)
        return np.mean(values) / (np.std(values) / 20)

    assert abs(spread(True)) < 3
    assert spread(False) > 20


def test_fewer_rows_than_the_estimate_needs_give_zero():
    x = jnp.asarray(normal(5, 2), jnp.float32)
    three = jnp.asarray([True, False, True, True, False])
    for function in (partial(hsic, debiased=True), partial(cka, debiased=True)):
        run = jax.value_and_grad(lambda a, f=function: f(a, x[:, ::-1], where=three))
        value, gradient = jax.jit(run)(x)
        assert value == 0
        assert not gradient.any()
    assert call(cka, x, jnp.ones((5, 3))) == 0


def test_cka_of_far_small_and_large_features():
    x, y = normal(12, 3), normal(12, 4, seed=1)
    expected = loop.cka()(x, y, None, None)
    for scale, offset in ((1e-9, 0), (1e9, 0), (1, 100)):
        a = jnp.asarray(scale * x + offset, jnp.float32)
        np.testing.assert_allclose(call(cka, a, jnp.asarray(y, jnp.float32)), expected, rtol=1e-4)


def test_consistencies_ignore_what_they_should():
    x = jnp.asarray(normal(6, 3), jnp.float32)
    turned = x @ jnp.asarray(orthogonal(3), jnp.float32)
    assert not call(cross_modal_consistency, x, x).any()
    np.testing.assert_allclose(call(in_modal_consistency, x, turned), 0, atol=1e-9)
    np.testing.assert_allclose(call(similarity_matching, x, turned), 0, atol=1e-9)
    moved = 5 * turned + 2
    np.testing.assert_allclose(call(relational_distance, moved, x), 0, atol=1e-9)
    np.testing.assert_allclose(call(relational_angle, moved, x), 0, atol=1e-9)


def test_the_divergence_from_an_equal_teacher_is_zero():
    a, b = (jnp.asarray(normal(5, 3, seed=i), jnp.float32) for i in (0, 1))
    same = partial(similarity_distillation, teacher_a=a, teacher_b=b, logit_scale=4.0)
    np.testing.assert_allclose(call(same, a, b, subtract_entropy=True), 0, atol=1e-6)
    gradient = jax.grad(lambda x: call(same, x, b).sum())(a)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_angles_need_no_cubic_memory():
    x = jnp.asarray(normal(128, 8), jnp.float32)
    program = (
        jax.jit(jax.grad(lambda a: call(relational_angle, a, x[::-1]).mean())).lower(x).compile()
    )
    assert program.memory_analysis().temp_size_in_bytes < 128**3


def test_procrustes_is_that_of_scipy():
    a, b = normal(10, 4), normal(10, 4, seed=1)
    expected, _ = scipy.linalg.orthogonal_procrustes(a, b)
    with jax.enable_x64(True):
        a, b = jnp.asarray(a), jnp.asarray(b)
        np.testing.assert_allclose(call(orthogonal_map, a, b), expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(
            call(procrustes_residual, a, b), jnp.sum((a @ expected - b) ** 2, axis=1), rtol=1e-9
        )


def test_rotations_without_reflection():
    a = normal(10, 3)
    mirrored = a * [1, 1, -1]
    with jax.enable_x64(True):
        a, mirrored = jnp.asarray(a), jnp.asarray(mirrored)
        assert jnp.linalg.det(call(orthogonal_map, a, mirrored)) < 0
        np.testing.assert_allclose(
            jnp.linalg.det(call(orthogonal_map, a, mirrored, reflection=False)), 1, rtol=1e-9
        )
        assert call(procrustes_residual, a, mirrored).max() < 1e-20
        assert call(procrustes_residual, a, mirrored, reflection=False).max() > 0.1


def test_a_map_carries_rows_that_it_was_not_fitted_on():
    a, rotation = normal(8, 3), orthogonal(3)
    b = a @ rotation + 4
    b[5:] = np.nan
    fitted = jnp.arange(8) < 5
    with jax.enable_x64(True):
        moved = call(
            procrustes_transform, jnp.asarray(a), jnp.asarray(b), center=True, where=fitted
        )
        np.testing.assert_allclose(moved, a @ rotation + 4, rtol=1e-9)


@pytest.mark.parametrize("reflection", [True, False])
def test_the_derivative_of_the_map_where_singular_values_coincide(reflection):
    x = whitened(normal(9, 3))
    with jax.enable_x64(True):
        a, b = jnp.asarray(x), jnp.asarray(x @ orthogonal(3) * (1 if reflection else -1))
        step = jnp.asarray(normal(9, 3, seed=5))
        run = jax.jit(lambda a: call(orthogonal_map, a, b))
        slope = jax.jvp(run, (a,), (step,))[1]
        numeric = (run(a + 1e-6 * step) - run(a - 1e-6 * step)) / 2e-6
        np.testing.assert_allclose(slope, numeric, rtol=1e-5, atol=1e-8)

        def total(a):
            return call(procrustes_residual, a, b, reflection=reflection).sum()

        for degenerate in (a, jnp.zeros_like(a), a.at[:, 1:].set(0), a.at[1:].set(0)):
            value, gradient = jax.jit(jax.value_and_grad(total))(degenerate)
            assert np.isfinite(value)
            assert np.isfinite(gradient).all()


def test_closing_the_gap_needs_both_terms():
    """Rows on opposite poles: aligned pairs with spread centroids have neither gap nor loss."""
    circle = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    x = jnp.asarray(np.stack([np.cos(circle), np.sin(circle)], 1), jnp.float32)
    apart = jnp.asarray([[1.0, 0.0]] * 8, jnp.float32)
    for a, b in ((x, x), (apart, -apart), (apart, apart)):
        total = call(alignment_loss, a, b).mean() + call(centroid_uniformity, a, b)
        assert total >= call(alignment_loss, x, x).mean() + call(centroid_uniformity, x, x)
    assert call(modality_gap, x, x) == 0
