"""Modules of attention against float64 loops and against jax.nn and flax."""

import attention_oracles as oracle
import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nn_numbers import close, normal

from datarax import nn
from datarax.functional import dot_product_attention, query_text_mask

MASK = np.array([True, False, True, True])


@pytest.fixture(autouse=True)
def wide():
    with jax.enable_x64(True):
        yield


def shaken(module):
    """The module with every parameter moved: what starts at 0 or 1 would hide errors."""
    for i, leaf in enumerate(jax.tree.leaves(nnx.state(module, nnx.Param))):
        assert leaf.dtype == jnp.float32, i
    state = nnx.state(module, nnx.Param)
    leaves, tree = jax.tree.flatten(state)
    moved = [x + jnp.asarray(normal(*x.shape, seed=i) * 0.2, x.dtype) for i, x in enumerate(leaves)]
    nnx.update(module, jax.tree.unflatten(tree, moved))
    return module


def run(module, *args, **options):
    args, options = jax.tree.map(jnp.asarray, (args, options))
    return nnx.jit(lambda m, args, options: m(*args, **options))(module, args, options)


def seen_by(t, mask):
    return np.tile(mask, (t, 1))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_grouped_cross_attention_is_the_loop(kv_heads):
    module = shaken(
        nn.CrossAttention(3, 5, num_heads=4, head_dim=2, num_kv_heads=kv_heads, rngs=nnx.Rngs(0))
    )
    query, context, bias = normal(2, 3), normal(4, 5, seed=1), normal(4, 2, 4, seed=2)
    got = run(module, query, context, context_mask=MASK, bias=bias)
    close(got, oracle.cross_attention(module, query, context, seen_by(2, MASK), bias=bias))


def test_normalised_turned_and_gated_heads_are_the_loop():
    module = shaken(
        nn.CrossAttention(
            3, 5, num_heads=2, head_dim=4, qk_norm="rms", gate="tanh_per_head", rngs=nnx.Rngs(0)
        )
    )
    query, context = normal(2, 3), normal(4, 5, seed=1)
    here, there = np.array([0.5, 3.0]), np.array([-1.0, 0.0, 2.5, 7.0])
    options = {"query_positions": here, "context_positions": there}
    got = run(module, query, context, **options)
    heads = {}
    for name, x, norm, places in (
        ("query", query, module.query_norm, here),
        ("key", context, module.key_norm, there),
    ):
        split = oracle.linear(getattr(module, name), x).reshape(len(x), 2, 4)
        scale = np.asarray(norm.scale[...], np.float64)
        heads[name] = oracle.rotary(oracle.root_mean_square(split, scale, eps=1e-6), places)
    value = oracle.linear(module.value, context).reshape(4, 2, 4)
    out = oracle.attend(heads["query"], heads["key"], value, np.ones((2, 4), bool))
    out = out * np.tanh(np.asarray(module.gate[...], np.float64))[None, :, None]
    close(got, oracle.linear(module.output, out.reshape(2, -1)))


def test_map_head_is_the_loop():
    pool = shaken(nn.AttentionPool(6, num_heads=2, hidden_features=3, rngs=nnx.Rngs(0)))
    tokens = normal(4, 6)
    got = run(pool, tokens, mask=MASK)
    (layer,) = pool.layers
    probe = np.asarray(pool.queries[...], np.float64)
    z = oracle.cross_attention(layer.attention, probe, tokens, seen_by(1, MASK))
    z = z + oracle.feed_forward(layer.feed_forward, oracle.layer_norm(layer.norm, z))
    assert layer.feed_forward.activation == "gelu_tanh"
    close(got, z[0])


def test_resampler_is_the_loop():
    pool = shaken(
        nn.AttentionPool(
            6, num_queries=2, depth=2, num_heads=2, hidden_features=3, num_times=3, rngs=nnx.Rngs(0)
        )
    )
    tokens = normal(2, 4, 6)
    got = run(pool, tokens, mask=np.stack([MASK, MASK]))
    for time in range(2):
        x = tokens[time] + np.asarray(pool.time_embedding[...], np.float64)[time]
        latents = np.asarray(pool.queries[...], np.float64)
        for layer in pool.layers:
            normed = oracle.layer_norm(layer.query_norm, latents)
            seen = np.concatenate([oracle.layer_norm(layer.context_norm, x), normed])
            there = seen_by(2, np.concatenate([MASK, [True, True]]))
            latents = latents + oracle.cross_attention(layer.attention, normed, seen, there)
            normed = oracle.layer_norm(layer.norm, latents)
            latents = latents + oracle.feed_forward(layer.feed_forward, normed)
        close(got[time], oracle.layer_norm(pool.norm, latents))


@pytest.mark.parametrize("immediate", [True, False])
def test_gated_cross_attention_is_the_loop(immediate):
    block = shaken(
        nn.GatedCrossAttention(
            6,
            5,
            num_heads=2,
            head_dim=3,
            hidden_features=4,
            immediate_only=immediate,
            rngs=nnx.Rngs(0),
        )
    )
    text, media = normal(5, 6), normal(2, 3, 5, seed=1)
    places = np.array([False, True, False, True, False])
    got = run(block, text, media, media_locations=places)
    seen = np.zeros((5, 6), bool)
    for t in range(5):
        before = int(places[: t + 1].sum())
        for m in range(2):
            seen[t, 3 * m : 3 * m + 3] = m + 1 == before if immediate else m + 1 <= before
    attended = oracle.cross_attention(
        block.attention, oracle.layer_norm(block.norm, text), media.reshape(6, 5), seen
    )
    assert not attended[0].any()
    x = text + np.tanh(float(block.attention.gate[...])) * attended
    hidden = oracle.feed_forward(block.feed_forward, oracle.layer_norm(block.feed_forward_norm, x))
    close(got, x + np.tanh(float(block.feed_forward_gate[...])) * hidden)


@pytest.mark.parametrize("mode", ["bidirectional", "separate", "causal"])
def test_q_former_is_the_loop(mode):
    block = shaken(
        nn.QFormerBlock(
            6,
            5,
            num_queries=2,
            num_layers=2,
            num_heads=2,
            hidden_features=4,
            text_attention=mode,
            norm_eps=1e-5,
            rngs=nnx.Rngs(0),
        )
    )
    context, text = normal(4, 5), normal(3, 6, seed=1)
    got = run(block, context, text, context_mask=MASK)
    x = np.concatenate([np.asarray(block.queries[...], np.float64), text])
    seen = np.asarray(query_text_mask(2, 3, text_attention=mode))
    assert [layer.cross_attention is None for layer in block.layers] == [False, True]
    for layer in block.layers:
        attended = oracle.cross_attention(layer.self_attention, x, x, seen)
        x = oracle.layer_norm(layer.self_attention_norm, x + attended)
        q, t = x[:2], x[2:]
        if layer.cross_attention is not None:
            attended = oracle.cross_attention(layer.cross_attention, q, context, seen_by(2, MASK))
            q = oracle.layer_norm(layer.cross_attention_norm, q + attended)
        hidden = oracle.feed_forward(layer.query_feed_forward, q)
        q = oracle.layer_norm(layer.query_feed_forward_norm, q + hidden)
        hidden = oracle.feed_forward(layer.text_feed_forward, t)
        t = oracle.layer_norm(layer.text_feed_forward_norm, t + hidden)
        x = np.concatenate([q, t])
    close(got[0], x[:2])
    close(got[1], x[2:])


@pytest.mark.parametrize("decode", ["mean", "queries"])
def test_latent_fusion_is_the_loop(decode):
    fuse = shaken(
        nn.LatentFusion(
            (3, 5),
            2,
            latent_features=4,
            num_latents=2,
            num_reads=2,
            depth=1,
            num_heads=2,
            decode=decode,
            rngs=nnx.Rngs(0),
        )
    )
    tokens = [normal(2, 3), normal(4, 5, seed=1)]
    got = run(fuse, tokens, masks=[None, MASK])
    types = np.asarray(fuse.type_embedding[...], np.float64)
    context = np.concatenate(
        [oracle.linear(fuse.projections[m], x) + types[m] for m, x in enumerate(tokens)]
    )
    x = np.asarray(fuse.latents[...], np.float64)
    there = seen_by(2, np.concatenate([[True, True], MASK]))
    for read, process in zip(fuse.reads, fuse.processes, strict=True):
        for layer, own in ((read, False), (process, True)):
            normed = oracle.layer_norm(layer.query_norm, x)
            seen = normed if own else oracle.layer_norm(layer.context_norm, context)
            mask = np.ones((2, 2), bool) if own else there
            x = x + oracle.cross_attention(layer.attention, normed, seen, mask)
            x = x + oracle.feed_forward(layer.feed_forward, oracle.layer_norm(layer.norm, x))
    if decode == "mean":
        expected = oracle.linear(fuse.output, oracle.layer_norm(fuse.norm, x.mean(0)[None]))[0]
    else:
        query = oracle.layer_norm(fuse.query_norm, np.asarray(fuse.output_queries[...], np.float64))
        seen = oracle.layer_norm(fuse.norm, x)
        decoded = oracle.cross_attention(fuse.decoder, query, seen, np.ones((1, 2), bool))
        expected = oracle.linear(fuse.output, decoded)[0]
    close(got, expected)


def test_co_attention_in_pairs_and_by_one_similarity_is_the_loop():
    tokens, masks = [normal(2, 3), normal(4, 5, seed=1)], [None, MASK]
    both = np.array([True, True])
    pairs = shaken(
        nn.CoAttention((3, 5), num_heads=2, head_dim=2, include_self=True, rngs=nnx.Rngs(0))
    )
    got = run(pairs, tokens, masks=masks)
    there = [both, MASK]
    for i in range(2):
        seen = [np.outer(there[i], there[j]) for j in range(2)]
        parts = [
            oracle.cross_attention(pairs.pairs[2 * i + j], tokens[i], tokens[j], seen[j])
            for j in range(2)
        ]
        close(got[i], np.concatenate(parts, axis=-1))
    shared = shaken(
        nn.CoAttention(
            (3, 5), method="shared_similarity", num_heads=2, head_dim=2, rngs=nnx.Rngs(0)
        )
    )
    got = run(shared, tokens, masks=masks)
    k, v = (
        [oracle.linear(layer, x).reshape(-1, 2, 2) for layer, x in zip(layers, tokens, strict=True)]
        for layers in (shared.keys, shared.values)
    )
    seen = np.outer(both, MASK)
    for i, there in enumerate((seen, seen.T)):
        out = oracle.attend(k[i], k[1 - i], v[1 - i], there).reshape(len(tokens[i]), -1)
        expected = oracle.linear(shared.outputs[i], out)
        expected[~there.any(axis=1)] = 0
        close(got[i], expected)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_grouped_attention_is_that_of_jax(kv_heads):
    assert jax.__version__ >= "0.10"  # jax.nn.dot_product_attention 0.10.2
    q = normal(2, 3, 4, 8)
    k, v = normal(2, 5, kv_heads, 8, seed=1), normal(2, 5, kv_heads, 8, seed=2)
    mask = np.random.default_rng(0).random((2, 1, 3, 5)) < 0.7
    mask[..., 0] = True
    theirs = jax.nn.dot_product_attention(
        *(jnp.asarray(x, jnp.float32) for x in (q, k, v)), mask=jnp.asarray(mask)
    )
    ours = jax.jit(lambda *x: dot_product_attention(*x, mask=jnp.asarray(mask)))(q, k, v)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_cross_attention_is_that_of_flax():
    assert flax.__version__ >= "0.12"  # nnx.MultiHeadAttention 0.12.8
    theirs = nnx.MultiHeadAttention(
        num_heads=2, in_features=6, in_kv_features=5, qkv_features=8, decode=False,
        rngs=nnx.Rngs(0),
    )  # fmt: skip
    module = shaken(nn.CrossAttention(6, 5, num_heads=2, head_dim=4, rngs=nnx.Rngs(0)))
    for name, other in (("query", theirs.query), ("key", theirs.key), ("value", theirs.value)):
        layer = getattr(module, name)
        layer.kernel[...] = other.kernel[...].reshape(layer.kernel.shape).astype(jnp.float32)
        layer.bias[...] = other.bias[...].reshape(-1).astype(jnp.float32)
    module.output.kernel[...] = theirs.out.kernel[...].reshape(8, 6).astype(jnp.float32)
    module.output.bias[...] = theirs.out.bias[...].astype(jnp.float32)
    query, context = normal(3, 6), normal(4, 5, seed=1)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = theirs(query, context, mask=jnp.asarray(seen_by(3, MASK))[None])
    got = run(module, query, context, context_mask=MASK)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
