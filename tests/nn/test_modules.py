"""Shapes, dtypes, presence, gradients and errors of the modules; functional has the arithmetic."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax import functional, nn

WIDTHS, OUT, N = (3, 5, 2), 4, 6
FUSIONS = {
    "concat": nn.ConcatFusion,
    "weighted_sum": nn.WeightedSumFusion,
    "attention": nn.AttentionFusion,
    "gated": nn.GatedFusion,
    "gated_sigmoid": lambda *args, rngs: nn.GatedFusion(*args, gate="sigmoid", rngs=rngs),
}
PRESENCE = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0], [0, 0, 1], [1, 1, 0]], bool)

fusions = pytest.mark.parametrize("kind", FUSIONS)
dtypes = pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])


def fusion(kind):
    return FUSIONS[kind](WIDTHS, OUT, rngs=nnx.Rngs(0))


def normal(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def modalities(dtype=jnp.float32):
    return [normal(N, width, seed=m, dtype=dtype) for m, width in enumerate(WIDTHS)]


def presence():
    return [jnp.asarray(column) for column in PRESENCE.T]


@nnx.jit
def call(module, *arrays, **masks):
    """One program a call: op by op, each op would be a program of its own."""
    return module(*arrays, **masks)


def leaves_are_finite(tree):
    return all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(tree))


@fusions
@dtypes
def test_fusion_computes_in_the_dtype_of_its_input(kind, dtype):
    module = fusion(kind)
    fused = call(module, modalities(dtype), presence())
    assert (fused.shape, fused.dtype) == ((N, OUT), dtype)
    wide = call(module, [x.astype(jnp.float32) for x in modalities(dtype)], presence())
    np.testing.assert_allclose(fused.astype(jnp.float32), wide, atol=5e-2)
    assert {x.dtype for x in jax.tree.leaves(nnx.state(module, nnx.Param))} == {jnp.dtype("f4")}


@fusions
def test_fusion_of_one_record_is_a_row_of_the_batch(kind):
    module = fusion(kind)
    batched = call(module, modalities(), presence())
    for i in range(N):
        one = call(module, [x[i] for x in modalities()], [mask[i] for mask in presence()])
        np.testing.assert_allclose(one, batched[i], rtol=1e-5, atol=1e-6)
    everything = call(module, modalities())
    np.testing.assert_allclose(everything[0], batched[0], rtol=1e-5, atol=1e-6)


@fusions
@pytest.mark.parametrize("garbage", [np.nan, np.inf])
def test_absent_modalities_reach_neither_result_nor_gradients(kind, garbage):
    module = fusion(kind)
    masks, clean = presence(), modalities()
    dirty = [jnp.where(mask[:, None], x, garbage) for x, mask in zip(clean, masks, strict=True)]

    def objective(module, inputs):
        fused = module(inputs, masks)
        return jnp.sum(fused**2), fused

    run = nnx.jit(nnx.grad(objective, argnums=(0, 1), has_aux=True))
    expected, value = run(module, clean)
    got, dirty_value = run(module, dirty)
    np.testing.assert_array_equal(dirty_value, value)
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert not value[3].any()
    assert all(row.any() for row in value[np.array([0, 1, 2, 4, 5])])
    for gradient, mask in zip(got[1], masks, strict=True):
        assert not gradient[~mask].any()
        assert gradient[mask].any()


@fusions
def test_every_parameter_of_a_fusion_learns(kind):
    module = fusion(kind)
    # Biases and offsets are 0 at the start; a step away, every leaf must have a gradient.
    gradients = nnx.jit(nnx.grad(lambda m: jnp.sum(m(modalities(), presence()) ** 3)))(module)
    for path, leaf in nnx.to_flat_state(nnx.state(gradients)):
        assert bool(jnp.any(leaf[...] != 0)), path


def test_the_weighted_sum_starts_as_the_mean():
    x = [normal(N, 3, seed=m) for m in range(2)]
    np.testing.assert_allclose(
        nn.WeightedSumFusion((None, None))(x), (x[0] + x[1]) / 2, rtol=1e-6, atol=1e-7
    )


def test_attention_fusion_is_a_convex_combination():
    module = nn.AttentionFusion((3, 3), 3, rngs=nnx.Rngs(0))
    module.projections[1] = module.projections[0]
    x = normal(N, 3)
    np.testing.assert_allclose(module([x, x]), module.projections[0](x), rtol=1e-5, atol=1e-6)


@fusions
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x, p: (x[:2], p), ValueError, "inputs must hold 3 arrays, got 2"),
        (lambda x, p: (x, p[:2]), ValueError, "presence must hold 3 masks, got 2"),
        (lambda x, p: ([x[0][:, :2], *x[1:]], p), ValueError, r"inputs\[0\] .* \[..., 3\], got"),
        (lambda x, p: ([x[0][:2], *x[1:]], p), ValueError, "inputs must share leading axes"),
        (lambda x, p: ([x[0].astype(int), *x[1:]], p), TypeError, r"inputs\[0\] must be floating"),
        (lambda x, p: ([x[0].astype("bfloat16"), *x[1:]], p), TypeError, "share a dtype"),
        (lambda x, p: (x, [p[0].astype(int), *p[1:]]), TypeError, r"presence\[0\] must be boolean"),
        (lambda x, p: (x, [p[0][:2], *p[1:]]), ValueError, r"presence\[0\] must have shape"),
    ],
)
def test_fusion_refuses(kind, change, error, message):
    with pytest.raises(error, match=message):
        fusion(kind)(*change(modalities(), presence()))


def test_weighted_sum_refuses():
    with pytest.raises(ValueError, match=r"in_features \(2, 3\) differ: give out_features"):
        nn.WeightedSumFusion((2, 3))
    with pytest.raises(ValueError, match="out_features=4 needs rngs and every width"):
        nn.WeightedSumFusion((2, None), 4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="inputs must share a shape"):
        nn.WeightedSumFusion((None, None))([jnp.ones(2), jnp.ones(3)])
    with pytest.raises(ValueError, match="at least one modality, got none"):
        nn.WeightedSumFusion(())


@fusions
def test_fusion_of_nothing_is_refused(kind):
    with pytest.raises(ValueError, match="at least one modality, got none"):
        FUSIONS[kind]((), 4, rngs=nnx.Rngs(0))


def test_logit_scale_starts_at_clips_value_and_is_clamped():
    scale = nn.LogitScale()
    assert scale.logit_bias is None
    np.testing.assert_allclose(scale(), 1 / 0.07, rtol=1e-6)
    np.testing.assert_allclose(scale.log_scale[...], math.log(1 / 0.07), rtol=1e-6)
    scale.log_scale[...] = jnp.asarray(50.0)
    assert scale() == 100
    scale.log_scale[...] = jnp.asarray(-50.0)
    assert scale() == 1


def test_logit_scale_that_overshot_comes_back():
    scale = nn.LogitScale(initial_scale=100.0)
    scale.log_scale[...] = jnp.asarray(5.0)
    slope = nnx.grad(lambda m: m())(scale)
    assert slope.log_scale[...] == 100


def test_logit_bias_is_learned():
    scale = nn.LogitScale(initial_bias=-10.0)
    a = functional.safe_l2_normalize(normal(4, 8))

    def objective(scale):
        return functional.sigmoid_contrastive(
            a, a, logit_scale=scale(), logit_bias=scale.logit_bias
        ).mean()

    slopes = nnx.grad(objective)(scale)
    assert scale.logit_bias == -10
    assert slopes.bias[...] != 0
    assert slopes.log_scale[...] != 0


@pytest.mark.parametrize("bounds", [(0.0, 100.0), (20.0, 100.0), (1.0, 5.0)])
def test_logit_scale_refuses_bounds(bounds):
    with pytest.raises(ValueError, match="0 < min_scale <= initial_scale <= max_scale"):
        nn.LogitScale(min_scale=bounds[0], max_scale=bounds[1])


@dtypes
@pytest.mark.parametrize("hidden", [None, 7])
def test_projection_head(dtype, hidden):
    head = nn.ProjectionHead(3, 4, hidden_features=hidden, normalize=True, rngs=nnx.Rngs(0))
    x = normal(N, 3, dtype=dtype)
    y = call(head, x)
    assert (y.shape, y.dtype) == ((N, 4), dtype)
    np.testing.assert_allclose(jnp.linalg.norm(y.astype(jnp.float32), axis=-1), 1, rtol=1e-2)
    np.testing.assert_allclose(
        call(head, x[0]).astype(jnp.float32), y[0].astype(jnp.float32), rtol=2e-2, atol=1e-2
    )
    total = nnx.grad(lambda m: m(jnp.zeros(3, dtype)).astype(jnp.float32).sum())
    gradients = nnx.jit(total)(head)
    assert leaves_are_finite(gradients)


def test_linear_is_the_matrix_product():
    layer = nn.Linear(3, 4, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.arange(4.0)
    x = normal(2, 5, 3)
    expected = np.asarray(x) @ np.asarray(layer.kernel[...]) + np.arange(4.0)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)
    assert nn.Linear(3, 4, use_bias=False, rngs=nnx.Rngs(0)).bias is None


def test_linear_refuses():
    layer = nn.Linear(3, 4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"x must have shape \[..., 3\], got \(2, 4\)"):
        layer(jnp.ones((2, 4)))
    with pytest.raises(TypeError, match="x must be floating point, got int32"):
        layer(jnp.ones((2, 3), int))
    with pytest.raises(ValueError, match="in_features and out_features must be positive, got 0, 4"):
        nn.Linear(0, 4, rngs=nnx.Rngs(0))


def attention(**options):
    return nn.CrossAttention(3, 5, num_heads=2, head_dim=4, rngs=nnx.Rngs(0), **options)


def sequences(n=3, t=4, s=6, dtype=jnp.float32):
    return normal(n, t, 3, dtype=dtype), normal(n, s, 5, seed=1, dtype=dtype)


def token_masks():
    rng = np.random.default_rng(5)
    queries, contexts = rng.random((3, 4)) < 0.7, rng.random((3, 6)) < 0.6
    contexts[1] = False
    queries[0, 0], queries[0, 1], contexts[0, 0], contexts[0, 1] = True, False, True, False
    return jnp.asarray(queries), jnp.asarray(contexts)


@dtypes
def test_cross_attention_computes_in_the_dtype_of_its_input(dtype):
    attend = nnx.jit(lambda module, *tokens: module(*tokens, return_weights=True))
    out, weights = attend(attention(out_features=7), *sequences(dtype=dtype))
    assert (out.shape, out.dtype) == ((3, 4, 7), dtype)
    assert (weights.shape, weights.dtype) == ((3, 2, 4, 6), jnp.float32)
    assert nnx.eval_shape(attention(), *sequences()).shape == (3, 4, 3)


def test_cross_attention_of_one_record_is_a_row_of_the_batch():
    module, (query, context), (queries, contexts) = attention(), sequences(), token_masks()
    batched = call(module, query, context, query_mask=queries, context_mask=contexts)
    for i in range(3):
        one = call(module, query[i], context[i], query_mask=queries[i], context_mask=contexts[i])
        np.testing.assert_allclose(one, batched[i], rtol=1e-5, atol=1e-6)


def test_padding_is_as_if_it_were_not_there():
    module, (query, context) = attention(), sequences(n=1)
    mask = jnp.asarray([[True, False, True, True, False, False]])
    expected = call(module, query, context[:, mask[0]])
    got = call(module, query, context, context_mask=mask)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_masked_tokens_reach_neither_result_nor_gradients():
    module, (query, context), (queries, contexts) = attention(), sequences(), token_masks()
    module.output.bias[...] = jnp.ones(3)
    dirty = (
        jnp.where(queries[..., None], query, jnp.nan),
        jnp.where(contexts[..., None], context, jnp.inf),
    )

    def objective(module, inputs):
        out = module(*inputs, query_mask=queries, context_mask=contexts)
        return jnp.sum(out**2), out

    run = nnx.jit(nnx.grad(objective, argnums=(0, 1), has_aux=True))
    gradients, out = run(module, dirty)
    assert leaves_are_finite(gradients)
    np.testing.assert_array_equal(out, run(module, (query, context))[1])
    assert not out[1].any()
    assert not out[~queries].any()
    assert not gradients[1][0][~queries].any()
    assert not gradients[1][1][~contexts].any()
    assert out[0, 0].any()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"context": jnp.ones((3, 6, 4))}, ValueError, r"expected query \[..., t, 3\] and context"),
        ({"context": jnp.ones((2, 6, 5))}, ValueError, "equal leading axes"),
        ({"query": jnp.ones(3)}, ValueError, "expected query"),
        ({"query": jnp.ones((3, 4, 3), int)}, TypeError, "query must be floating point"),
        ({"query_mask": jnp.ones((3, 4))}, TypeError, "query_mask must be boolean"),
        ({"context_mask": jnp.ones((3, 4), bool)}, ValueError, r"context_mask must have shape \(3"),
    ],
)
def test_cross_attention_refuses(options, error, message):
    query, context = sequences()
    arguments = {"query": query, "context": context} | options
    with pytest.raises(error, match=message):
        attention()(**arguments)


def test_cross_attention_needs_heads():
    with pytest.raises(ValueError, match="num_heads and head_dim must be positive, got 0, 4"):
        nn.CrossAttention(3, 5, num_heads=0, head_dim=4, rngs=nnx.Rngs(0))
