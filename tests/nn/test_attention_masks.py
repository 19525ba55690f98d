"""Invariants, masks, dropout and errors of the modules of attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nn_numbers import normal

from datarax import nn

KEEP = jnp.asarray([True, False, True, True])
NONE = jnp.zeros(4, bool)


def array(*shape, seed=0):
    return jnp.asarray(normal(*shape, seed=seed), jnp.float32)


def opened(block):
    block.attention.gate[...] = jnp.float32(0.7)
    block.feed_forward_gate[...] = jnp.float32(-0.4)
    return block


def gated(**options):
    return nn.GatedCrossAttention(6, 5, num_heads=2, head_dim=3, rngs=nnx.Rngs(0), **options)


def former(**options):
    options = {"num_queries": 2, "num_layers": 1, "num_heads": 2, "hidden_features": 4} | options
    return nn.QFormerBlock(6, 5, rngs=nnx.Rngs(0), **options)


def latent(**options):
    sizes = {"latent_features": 4, "num_latents": 2, "depth": 1, "num_heads": 2}
    return nn.LatentFusion((5, 3), 2, rngs=nnx.Rngs(0), **sizes, **options)


def pool(**options):
    return nn.AttentionPool(5, num_heads=1, hidden_features=3, rngs=nnx.Rngs(0), **options)


OTHER = array(3, 3, seed=3)
TEXT = array(3, 6, seed=4)
BLOCKS = {
    "map head": (pool, lambda m, x, mask: m(x, mask=mask)),
    "resampler": (
        lambda: pool(num_queries=2, depth=2),
        lambda m, x, mask: m(x, mask=mask),
    ),
    "gated": (
        lambda: opened(gated()),
        lambda m, x, mask: m(
            TEXT, x[None], text_mask=jnp.broadcast_to(jnp.any(mask), 3), media_mask=mask[None]
        ),
    ),
    "q-former": (former, lambda m, x, mask: m(x, context_mask=mask)[0]),
    "latent": (
        latent,
        lambda m, x, mask: m([x, OTHER], masks=[mask, jnp.broadcast_to(jnp.any(mask), 3)]),
    ),
    "pairs": (
        lambda: nn.CoAttention((6, 5), num_heads=1, head_dim=2, rngs=nnx.Rngs(0)),
        lambda m, x, mask: m([TEXT, x], masks=[None, mask])[0],
    ),
    "shared": (
        lambda: nn.CoAttention(
            (6, 5), method="shared_similarity", num_heads=1, head_dim=2, rngs=nnx.Rngs(0)
        ),
        lambda m, x, mask: m([TEXT, x], masks=[None, mask])[0],
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_masked_tokens_reach_nothing_and_an_empty_row_is_zero(name):
    make, call = BLOCKS[name]
    graph, state = nnx.split(make())

    def objective(state, x, mask):
        out = call(nnx.merge(graph, state), x, mask)
        return jnp.sum(jnp.cos(jnp.arange(out.size)).reshape(out.shape) * out), out

    run = jax.jit(jax.grad(objective, (0, 1), has_aux=True))
    x = array(4, 5)
    dirty = jnp.where(KEEP[:, None], x, jnp.asarray([[np.nan], [np.inf], [np.nan], [-np.inf]]))
    (parameters, slope), out = run(state, dirty, KEEP)
    (clean_parameters, clean_slope), clean = run(state, x, KEEP)
    np.testing.assert_array_equal(out, clean)
    np.testing.assert_array_equal(slope, clean_slope)
    jax.tree.map(np.testing.assert_array_equal, parameters, clean_parameters)
    assert not slope[~KEEP].any()
    assert slope[KEEP].any()
    (parameters, slope), out = run(state, jnp.full_like(x, jnp.nan), NONE)
    assert not out.any()
    assert not slope.any()
    assert not any(np.any(np.asarray(p) != 0) for p in jax.tree.leaves(parameters))


@pytest.mark.parametrize("name", ["map head", "resampler", "q-former", "latent"])
def test_the_order_of_tokens_does_not_matter(name):
    make, call = BLOCKS[name]
    module = make()
    run = nnx.jit(lambda m, x, mask: call(m, x, mask))
    order = jnp.asarray([2, 0, 3, 1])
    x = array(4, 5)
    np.testing.assert_allclose(
        run(module, x[order], KEEP[order]), run(module, x, KEEP), rtol=1e-5, atol=1e-6
    )


def turned(query_positions, context_positions):
    module = nn.CrossAttention(6, 5, num_heads=2, head_dim=4, rngs=nnx.Rngs(0))
    return nnx.jit(
        lambda m, q, k: m(array(3, 6), array(4, 5, seed=1), query_positions=q, context_positions=k)
    )(module, query_positions, context_positions)


def test_a_common_shift_of_positions_changes_nothing_and_zero_is_none():
    here, there = jnp.asarray([0.0, 1.5, 4.0]), jnp.asarray([2.0, 3.0, -1.0, 0.5])
    moved = turned(here + 3.25, there + 3.25)
    np.testing.assert_allclose(moved, turned(here, there), rtol=1e-4, atol=1e-5)
    still = turned(jnp.zeros(3), jnp.zeros(4))
    np.testing.assert_allclose(still, turned(None, None), rtol=1e-6, atol=1e-6)
    assert float(jnp.max(jnp.abs(moved - still))) > 1e-3


def test_closed_gates_are_the_identity():
    x, media = array(3, 6), array(2, 4, 5, seed=1)
    np.testing.assert_array_equal(nnx.jit(lambda m: m(x, media))(gated()), x)


def test_an_absent_context_leaves_the_text_as_if_there_were_no_queries():
    block, x = former(), array(4, 5)
    run = nnx.jit(lambda m, x, text, mask: m(x, text, context_mask=mask)[1])
    alone = run(former(text_attention="separate"), x, TEXT, KEEP)
    np.testing.assert_allclose(run(block, x, TEXT, NONE), alone, rtol=1e-5, atol=1e-6)


def test_dropout_is_drawn_with_a_key_only():
    module = nn.CrossAttention(6, 5, num_heads=2, head_dim=2, dropout=0.5, rngs=nnx.Rngs(0))
    sure = nn.CrossAttention(6, 5, num_heads=2, head_dim=2, rngs=nnx.Rngs(0))
    run = nnx.jit(lambda m, key: m(array(3, 6), array(4, 5), rng_key=key))
    first, second = (run(module, jax.random.key(i)) for i in range(2))
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(run(module, None), run(sure, None))
    x, context = array(3, 6), array(4, 5)
    mean = nnx.jit(lambda m, keys: jax.vmap(lambda key: m(x, context, rng_key=key))(keys).mean(0))
    many = mean(module, jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_allclose(many, run(sure, None), atol=0.05)


def cross(**options):
    sizes = {"num_heads": 4, "head_dim": 3} | options
    return nn.CrossAttention(6, 5, rngs=nnx.Rngs(0), **sizes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cross(num_kv_heads=3), "num_kv_heads must be a positive divisor .* got 3"),
        (lambda: cross(dropout=1.0), r"dropout must be in \[0, 1\), got 1.0"),
        (lambda: pool(num_queries=0), "num_queries and depth must be positive, got 0, 1"),
        (lambda: pool(num_times=2), "num_times must be positive and needs depth above 1, got 2"),
        (lambda: former(num_layers=0), "num_queries, num_layers .* got 2, 0, 2"),
        (lambda: former(num_heads=4), "num_heads 4 does not divide 6: give head_dim"),
        (
            lambda: nn.AttentionPool(5, num_heads=0, rngs=nnx.Rngs(0)),
            "num_heads 0 does not divide 5: give head_dim",
        ),
        (
            lambda: nn.LatentFusion((5,), 2, num_heads=0, rngs=nnx.Rngs(0)),
            "num_heads 0 does not divide 256: give head_dim",
        ),
        (lambda: latent(num_outputs=2), "num_outputs must be positive and belongs to .*'mean'"),
        (
            lambda: nn.CoAttention((3,), num_heads=1, head_dim=2, rngs=nnx.Rngs(0)),
            r"relates two or more modalities, got in_features \(3,\)",
        ),
        (
            lambda: cross()(TEXT, array(4, 5), query_positions=jnp.zeros(3)),
            "give both query_positions and context_positions, context_positions is None",
        ),
        (
            lambda: cross()(
                TEXT, array(4, 5), query_positions=jnp.zeros(3), context_positions=jnp.zeros(4)
            ),
            "head_dim must be even, got 3",
        ),
        (
            lambda: cross()(
                TEXT, array(4, 5), query_positions=jnp.zeros(2), context_positions=jnp.zeros(4)
            ),
            r"query_positions must have shape \(3,\) or \(3,\), got \(2,\)",
        ),
        (lambda: pool()(array(4, 6)), r"tokens must have shape \[..., s, 5\], got \(4, 6\)"),
        (lambda: gated()(TEXT, array(4, 5)), r"expected text \[..., t, d\] and media"),
        (lambda: former()(array(4, 5), array(3, 5)), r"text \[..., t, 6\] .* got \(4, 5\) and"),
        (lambda: former()(array(4, 5), text_mask=KEEP), "text_mask needs text, got None"),
        (lambda: latent()([array(4, 5)]), "expected 2 arrays of tokens and as many masks, got 1"),
        (lambda: latent()([array(4, 5), array(4, 4)]), r"widths \(5, 3\) .* \(4, 4\)"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_refuses_dtypes():
    with pytest.raises(TypeError, match="tokens must share a dtype"):
        latent()([array(4, 5), array(4, 3).astype(jnp.bfloat16)])
    with pytest.raises(TypeError, match="context and text must share a dtype"):
        former()(array(4, 5), TEXT.astype(jnp.bfloat16))
    with pytest.raises(TypeError, match="tokens must be floating point, got int32"):
        pool()(jnp.ones((4, 5), jnp.int32))
