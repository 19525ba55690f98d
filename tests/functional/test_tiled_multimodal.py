"""Losses of several modalities in blocks: the numbers of the dense form, in less memory."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datarax.functional import (
    info_nce,
    nt_xent,
    pairwise_multimodal,
    sigmoid_contrastive,
    supervised_contrastive,
    symile,
    volume_contrastive,
)
from datarax.functional.contrastive.tiles import check_tile

N, D = 11, 5


def batch(n=N, modalities=3, *, dtype=np.float64):
    rng = np.random.default_rng(3)
    rows = [rng.normal(size=(n, D)) for _ in range(modalities)]
    rows = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in rows]
    masks = [rng.random(n) < 0.8 for _ in range(modalities)]
    for x, mask in zip(rows, masks, strict=True):
        x[~mask] = np.nan
    return [x.astype(dtype) for x in rows], masks, rng.integers(0, 4, n), rng.normal(size=n)


def with_gradients(loss, rows, scale, weights):
    """The losses, and the gradients of a weighted sum of them."""

    @jax.jit
    def both(rows, scale):
        def objective(rows, scale):
            losses, used = loss(rows, scale)
            return jnp.sum(losses * weights.astype(losses.dtype)), (losses, used)

        return jax.grad(objective, (0, 1), has_aux=True)(rows, scale)

    return both([jnp.asarray(x) for x in rows], jnp.asarray(scale, rows[0].dtype))


def volume(rows, scale, *, ids, masks, tile, **options):
    options = {"presence": masks, "ids": ids} | options
    return volume_contrastive(rows, logit_scale=scale, tile=tile, **options)


def every_tuple(rows, scale, *, ids, masks, tile):
    return symile(rows, logit_scale=scale, presence=masks, tile=tile)


def drawn(rows, scale, *, ids, masks, tile):
    key = jax.random.key(0)
    return symile(rows, logit_scale=scale, presence=masks, negatives="n", key=key, tile=tile)


def of_pairs(rows, scale, *, ids, masks, tile, **options):
    return pairwise_multimodal(rows, logit_scale=scale, presence=masks, tile=tile, **options)


LOSSES = {
    "volume": volume,
    "symile": every_tuple,
    "symile, drawn": drawn,
}
SLOWER = {
    "volume, no ids": functools.partial(volume, ids=None, label_smoothing=0.1),
    "triangle": functools.partial(volume, shape="triangle", directions="b_to_a"),
    "volume, smoothed": functools.partial(volume, label_smoothing=0.2),
    "volume, a_to_b": functools.partial(volume, directions="a_to_b", presence=None, where=None),
    "triangle_root": functools.partial(volume, shape="triangle_root"),
    "pairs": of_pairs,
    "sigmoid pairs": functools.partial(of_pairs, loss="sigmoid", logit_bias=-1.0),
}


@pytest.mark.parametrize(
    ("name", "tile"),
    [
        *((name, 4) for name in LOSSES),
        *(pytest.param(name, 4, marks=pytest.mark.slow) for name in SLOWER),
        *(pytest.param(name, 11, marks=pytest.mark.slow) for name in LOSSES | SLOWER),
        *(pytest.param(name, 1, marks=pytest.mark.slow) for name in LOSSES | SLOWER),
        pytest.param("symile", 25, marks=pytest.mark.slow),
    ],
)
def test_blocks_give_the_numbers_of_the_dense_form(name, tile):
    rows, masks, ids, weights = batch()
    masks_there = [jnp.asarray(mask) for mask in masks]
    loss = functools.partial(({**LOSSES, **SLOWER})[name], masks=masks_there)
    if "ids" not in loss.keywords and "no ids" not in name:
        loss = functools.partial(loss, ids=jnp.asarray(ids))
    if name == "volume, a_to_b":
        rows = [np.nan_to_num(x) for x in rows]
    with jax.enable_x64(True):
        dense = with_gradients(functools.partial(loss, tile=None), rows, 20.0, weights)
        tiled = with_gradients(functools.partial(loss, tile=tile), rows, 20.0, weights)
        for x, y in zip(jax.tree.leaves(tiled), jax.tree.leaves(dense), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-10)
    (of_rows, _), (losses, used) = tiled
    assert not losses[~used].any()
    assert all(not np.any(np.asarray(x)[~mask]) for x, mask in zip(of_rows, masks, strict=True))


@pytest.mark.parametrize("modalities", [4, pytest.param(2, marks=pytest.mark.slow)])
def test_symile_of_other_numbers_of_modalities(modalities):
    rows, masks, _, weights = batch(6, modalities)
    loss = functools.partial(every_tuple, ids=None, masks=[jnp.asarray(x) for x in masks])
    with jax.enable_x64(True):
        dense, tiled = (
            with_gradients(functools.partial(loss, tile=tile), rows, 7.0, weights)
            for tile in (None, 4 if modalities == 2 else 20)
        )
        for x, y in zip(jax.tree.leaves(tiled), jax.tree.leaves(dense), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["symile", pytest.param("volume, no ids", marks=pytest.mark.slow)])
def test_float32_is_near_float64(name):
    rows, masks, _, weights = batch(dtype=np.float32)
    loss = functools.partial((LOSSES | SLOWER)[name], masks=[jnp.asarray(x) for x in masks])
    loss = functools.partial(loss, ids=None)
    tiled, dense = (
        with_gradients(functools.partial(loss, tile=tile), rows, 20.0, weights)
        for tile in (4, None)
    )
    with jax.enable_x64(True):
        exact = with_gradients(
            functools.partial(loss, tile=None), [x.astype(np.float64) for x in rows], 20.0, weights
        )
    for x, other, y in zip(*map(jax.tree.leaves, (tiled, dense, exact)), strict=True):
        if x.dtype != bool:
            y = np.asarray(y)
            off = np.abs(np.asarray(other, np.float64) - y).max()
            np.testing.assert_allclose(x, y, rtol=0, atol=1e-6 * np.abs(y).max() + 2 * off)


def test_one_kept_row_has_no_loss_in_blocks():
    rows, _, _, weights = batch(7)
    mask = jnp.arange(7) == 3
    rows = [np.where(np.asarray(mask)[:, None], np.nan_to_num(x) + 1, np.nan) for x in rows]
    rows = [x.astype(np.float32) for x in rows]
    for name in ("volume", "symile"):
        loss = functools.partial(LOSSES[name], ids=None, masks=[mask] * 3, tile=3)
        (of_rows, _), (losses, _) = with_gradients(loss, rows, 20.0, weights)
        assert not losses.any()
        assert not any(np.abs(x).max() > 1e-5 for x in of_rows)


def temporaries(loss, rows):
    def both(rows):
        return jax.value_and_grad(lambda rows: loss(rows)[0].sum())(rows)

    compiled = jax.jit(both).lower(rows).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_neither_a_matrix_nor_a_cube_is_held():
    n, d = 4096, 8
    rows = [jax.ShapeDtypeStruct((n, d), jnp.float32)] * 3
    held = temporaries(functools.partial(volume_contrastive, logit_scale=20.0), rows)
    assert held < n * n * 4
    n = 192
    rows = [jax.ShapeDtypeStruct((n, d), jnp.float32)] * 3
    held = temporaries(functools.partial(symile, logit_scale=20.0), rows)
    assert held < n**3 * 4 / 4


def test_a_tile_must_be_a_row():
    rows = [jnp.eye(3)] * 3
    for loss in (volume_contrastive, symile, pairwise_multimodal):
        with pytest.raises(ValueError, match="tile must be at least 1 row, got 0"):
            loss(rows, logit_scale=1.0, tile=0)


@pytest.mark.parametrize("tile", [2.5, 4.0, True])
def test_a_tile_must_be_a_whole_number_of_rows(tile):
    check = inspect.unwrap(check_tile)  # without the test run's own check of types
    with pytest.raises(TypeError, match=f"tile must be a whole number of rows, got {tile!r}"):
        check(tile)
    check(np.int64(4))


@pytest.mark.parametrize("dtype", [jnp.int8, bool, jnp.complex64])
def test_operands_must_be_floating_point(dtype):
    rows, options = jnp.eye(4), {"logit_scale": 1.0, "operand_dtype": dtype}
    losses = (
        lambda: info_nce(rows, rows, **options),
        lambda: info_nce(rows, rows, directions="a_to_b", **options),
        lambda: sigmoid_contrastive(rows, rows, logit_bias=0.0, **options),
        lambda: supervised_contrastive(rows, ids=jnp.arange(4), **options),
        lambda: nt_xent(rows, rows, **options),
    )
    message = f"operand_dtype must be floating point, got {jnp.dtype(dtype)}"
    for loss in losses:
        with pytest.raises(TypeError, match=message):
            loss()
