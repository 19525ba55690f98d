"""When cuDNN's attention is taken, and that what it is handed can be traced, mapped and lowered."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as fused

from datarax.functional import dot_product_attention
from datarax.functional.attention.cudnn import Cudnn, cudnn_attention, fits_cudnn, local_cudnn

AMPERE, ADA, HOPPER, BLACKWELL, ULTRA, GEFORCE = (8, 0), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0)


def struct(*shape, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct(shape, dtype)


def on(version, *capabilities):
    return Cudnn(version, frozenset(capabilities))


def heads(d, e=None, *, t=16, s=32):
    return [(2, t, 8, d), (2, s, 8, d), (2, s, 8, d if e is None else e)]


@pytest.mark.parametrize(
    ("fits", "shapes", "options"),
    [
        (True, heads(64), {}),
        (True, [(16, 8, 128), (32, 2, 128), (32, 2, 128)], {"masked": True}),
        (True, heads(64, t=15), {}),
        (False, heads(64, t=15), {"masked": True}),
        (False, heads(64, s=31), {"masked": True}),
        (True, heads(64), {"bias": jnp.bfloat16}),
        (False, heads(64, t=15), {"bias": jnp.bfloat16}),
        (False, heads(64), {"bias": jnp.float16}),
        (False, heads(64), {"bias": jnp.float32}),
        (False, heads(60), {}),
        (False, heads(0), {}),
        (True, heads(64, 32), {}),
        (True, heads(64, 60), {}),
        (True, heads(60, 64), {}),
        (False, heads(60, 60), {}),
        (True, heads(136), {}),
        (True, heads(64, 256), {"masked": True}),
        (False, heads(264), {}),
        (False, heads(64, 264), {}),
        (False, heads(64, s=0), {}),
        (False, [(0, 16, 8, 64), (0, 32, 8, 64), (0, 32, 8, 64)], {}),
    ],
)
def test_shapes_and_dtypes_that_are_taken(fits, shapes, options):
    options = {"cudnn": on(91000, HOPPER), **options}
    if "bias" in options:
        options["bias"] = struct(16, 32, dtype=options["bias"])
    assert fits_cudnn(*(struct(*x) for x in shapes), **options) == fits
    assert not fits_cudnn(*(struct(*x, dtype=jnp.float32) for x in shapes), **options)
    dtypes = [jnp.bfloat16, jnp.bfloat16, jnp.float16]
    mixed = [struct(*x, dtype=y) for x, y in zip(shapes, dtypes, strict=True)]
    assert not fits_cudnn(*mixed, **options)
    if "bias" not in options:
        assert fits_cudnn(*(struct(*x, dtype=jnp.float16) for x in shapes), **options) == fits


@pytest.mark.parametrize(
    ("widest", "cudnn"),
    [
        (0, None),
        (0, on(92000)),
        (0, on(92000, (7, 5))),
        (0, on(92000, (11, 0))),  # not known of
        (0, on(92000, (13, 0))),
        (0, on(90400, AMPERE)),
        (128, on(90500, AMPERE)),
        (128, on(92000, AMPERE, ADA)),
        (0, on(90400, HOPPER)),
        (256, on(90500, HOPPER)),
        (128, on(90500, HOPPER, AMPERE)),
        (0, on(90600, BLACKWELL)),
        (128, on(90700, BLACKWELL)),
        (128, on(92500, GEFORCE)),
        (0, on(91099, ULTRA)),
        (128, on(91100, ULTRA)),
        (0, on(91099, ULTRA, HOPPER)),
    ],
)
def test_gpus_and_versions_that_are_taken(widest, cudnn):
    for width in (8, 64, 128, 136, 192, 256, 264):
        x = struct(2, 16, 8, width)
        assert fits_cudnn(x, x, x, cudnn=cudnn) == (width <= widest)


def test_what_is_taken_jax_takes(monkeypatch):
    """JAX's own check, told of another GPU than there is."""
    for version in (90400, 90700, 91000, 91100, 92500):
        for capability in ((7, 5), AMPERE, ADA, HOPPER, BLACKWELL, ULTRA, GEFORCE):
            text = ".".join(map(str, capability))
            monkeypatch.setattr(
                fused,
                "check_compute_capability",
                lambda least, c=capability: c >= tuple(map(int, least.split("."))),
            )
            monkeypatch.setattr(
                fused, "is_cuda_compute_capability_equal", lambda x, text=text: x == text
            )
            for shapes in (heads(8), heads(60), heads(128), heads(192), heads(256), heads(264)):
                for masked in (False, True):
                    arrays = [struct(*x) for x in shapes]
                    if fits_cudnn(*arrays, cudnn=on(version, capability), masked=masked):
                        layout = fused.AttentionLayout.BTNH.value
                        fused.check_is_flash_attention(*arrays, layout, version, masked, True)


def test_there_is_no_cudnn_on_the_cpu():
    assert (local_cudnn() is not None) == (jax.default_backend() == "gpu")


def arrays(dtype=jnp.bfloat16, *, e=8, heads=2, leading=(2,), seed=0):
    """Query, key, value, mask and bias, which masks as well; one query sees nothing."""
    rng = np.random.default_rng(seed)
    shapes = [(*leading, 6, 4, 8), (*leading, 10, heads, 8), (*leading, 10, heads, e), (4, 6, 10)]
    q, k, v, bias = (jnp.asarray(rng.normal(size=x), dtype) for x in shapes)
    mask = jnp.asarray(rng.random((6, 10)) < 0.7).at[2].set(False)
    return q, k, v, mask, bias.at[:, 4, 3].set(-jnp.inf)


def grouped(x, *, heads=2):
    """As `dot_product_attention` hands masks and biases on."""
    x = x.reshape(*[1] * (4 - x.ndim), *x.shape)
    groups = (heads, x.shape[1] // heads) if x.shape[1] > 1 else (1, 1)
    return x.reshape(x.shape[0], *groups, *x.shape[-2:])


@pytest.mark.parametrize("e", [8, 3, 16])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_the_call_is_our_attention(monkeypatch, e, masked, biased):
    """With XLA in cuDNN's place: the padding, the masks, and what sees nothing."""
    called = []

    def xla(*inputs, implementation, rival=jax.nn.dot_product_attention, **options):
        called.append(implementation)
        return rival(*inputs, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", xla)
    q, k, v, mask, bias = arrays(jnp.float32, e=e)
    keep = grouped(mask if masked else jnp.ones_like(mask))
    keep = keep & (grouped(bias) != -jnp.inf) if biased else keep
    cotangent = jnp.asarray(np.random.default_rng(1).normal(size=(2, 6, 4, e)), jnp.float32)

    def theirs(q, k, v, bias):
        added = grouped(bias) if biased else None
        kept = keep if masked or biased else None
        return jnp.sum(cotangent * cudnn_attention(q, k, v, kept, added, scale=0.3))

    def ours(q, k, v, bias):
        options = {"mask": mask if masked else None, "bias": bias if biased else None}
        return jnp.sum(cotangent * dot_product_attention(q, k, v, scale=0.3, **options))

    found, expected = (
        jax.jit(jax.value_and_grad(f, (0, 1, 2, 3)))(q, k, v, bias) for f in (theirs, ours)
    )
    assert called == ["cudnn"]
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def test_no_infinite_bias_is_handed_on(monkeypatch):
    """A row of them is NaN in cuDNN, whose masks are added."""
    q, k, v, _, bias = arrays()
    bias = bias.at[1, 3].set(-jnp.inf)
    handed = []

    def look(query, key, value, *, bias, **_):
        handed.append(bias)
        return query

    monkeypatch.setattr(jax.nn, "dot_product_attention", look)
    found = cudnn_attention(q, k, v, grouped(bias != -jnp.inf), grouped(bias), scale=0.3)
    assert jnp.all(jnp.isfinite(handed[0]))
    assert not jnp.any(found[:, 3, 1])


@pytest.fixture
def lowered(monkeypatch):
    """Lowers for CUDA what takes cuDNN, which is not here."""
    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91000)
    return lambda f, *x: jax.jit(f).trace(*x).lower(lowering_platforms=("cuda",)).as_text()


MAPS = {
    "none": None,
    "all": (0, 0, 0, None, None),
    "query alone": (0, None, None, None, None),
    "context alone": (None, 0, 0, None, None),
    "mask alone": (None, None, None, 0, None),
    "bias and value": (None, None, 0, None, 0),
    "other axes": (1, 2, 3, 1, 2),
}


@pytest.mark.parametrize("axes", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize(("leading", "masked"), [((), True), ((2,), True), ((2,), False)])
def test_it_is_lowered_under_every_map(lowered, axes, leading, masked):
    x = arrays(e=3, leading=leading)

    def gradients(q, k, v, mask, bias):
        def total(q, k, v, bias):
            rest = [grouped(z) if leading else grouped(z)[0] for z in (mask, bias)]
            keep, added = rest if masked else (None, None)
            return jnp.sum(cudnn_attention(q, k, v, keep, added, scale=0.3).astype(jnp.float32))

        return jax.grad(total, (0, 1, 2, 3))(q, k, v, bias)

    if axes is not None:
        x = [y if i is None else jnp.stack([y] * 3, axis=i) for y, i in zip(x, axes, strict=True)]
        gradients = jax.vmap(gradients, in_axes=axes)
    text = lowered(gradients, *x)
    name = "ScaleBiasSoftmax" if masked else "Softmax"
    assert text.count(f"__cudnn$fmha{name}Backward") == 1


def test_without_mask_and_bias_nothing_is_added(lowered):
    q, k, v, *_ = arrays()
    text = lowered(partial(cudnn_attention, scale=0.3), q, k, v, None, None)
    assert "__cudnn$fmhaSoftmax" in text
    assert "Bias" not in text
