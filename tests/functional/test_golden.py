"""Values and gradients of open_clip_torch 3.3.0 on torch 2.13.0 (tools/make_golden.py)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datarax import functional

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "open_clip.npz")


def info_nce(a, b, scale, bias):
    return functional.info_nce(a, b, logit_scale=scale, logit_bias=bias).mean()


def sigmoid(a, b, scale, bias):
    return functional.sigmoid_contrastive(a, b, logit_scale=scale, logit_bias=bias).mean()


def test_the_file_is_of_the_named_versions():
    assert str(GOLDEN["open_clip_torch"]) == "3.3.0"
    assert str(GOLDEN["torch"]).startswith("2.13.0")


@pytest.mark.parametrize("case", GOLDEN["cases"].tolist())
@pytest.mark.parametrize(("name", "ours"), [("clip", info_nce), ("siglip", sigmoid)])
@pytest.mark.parametrize("wide", [True, False], ids=["f64", "f32"])
def test_agrees_with_open_clip(case, name, ours, wide):
    tolerance = {"rtol": 1e-10, "atol": 1e-12} if wide else {"rtol": 1e-5, "atol": 2e-5}
    inputs = ("a", "b", "scale", "bias")
    with jax.enable_x64(wide):
        arrays = [jnp.asarray(GOLDEN[f"{case}/{key}"]) for key in inputs]
        value, gradients = jax.jit(jax.value_and_grad(ours, range(4)))(*arrays)
        np.testing.assert_allclose(value, GOLDEN[f"{case}/{name}/value"], **tolerance)
        for key, gradient in zip(inputs, gradients, strict=True):
            expected = GOLDEN[f"{case}/{name}/grad_{key}"]
            np.testing.assert_allclose(gradient, expected, **tolerance, err_msg=key)
