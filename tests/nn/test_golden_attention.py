"""Attention blocks with the originals' weights (tools/golden/attention.py): values, gradients."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_file import Golden, linear

from datarax import nn

GOLDEN = Golden("attention")
WIDE = pytest.mark.parametrize(
    "wide", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["f64", "f32"]
)


def rngs():
    return nnx.Rngs(0)


def same(ours, theirs):
    return {ours: lambda w: w[theirs]}


def kernel(ours, theirs):
    return {f"{ours}/kernel": lambda w: w[f"{theirs}.weight"].T}


def norm(ours, theirs):
    return same(f"{ours}/scale", f"{theirs}.weight") | same(f"{ours}/bias", f"{theirs}.bias")


def half(ours, theirs, part):
    """Key and value are the halves of one map in lucidrains' modules."""
    return {f"{ours}/kernel": lambda w: np.split(w[f"{theirs}.weight"], 2)[part].T}


def lucid_attention(ours, theirs):
    """Without biases but, in the Perceiver, of the output layer; ours has all or none."""
    layout = kernel(f"{ours}/query", f"{theirs}.to_q") | kernel(
        f"{ours}/output", f"{theirs}.to_out"
    )
    layout |= half(f"{ours}/key", f"{theirs}.to_kv", 0)
    return layout | half(f"{ours}/value", f"{theirs}.to_kv", 1)


def torchmultimodal_attention(ours, theirs):
    layout = {}
    for name, short in zip(
        ("query", "key", "value", "output"), ("q", "k", "v", "output"), strict=True
    ):
        layout |= linear(f"{ours}/{name}", f"{theirs}.{short}_proj")
    return layout


def by_shared_head(name):
    """x-transformers gives query head h the shared head h % 2; ours gives it h // 2."""
    order = [0, 2, 1, 3]
    if name == "to_out":
        return lambda w: w["to_out.weight"].T.reshape(4, 4, 4)[order].reshape(16, 4)
    return lambda w: w["to_q.weight"].T.reshape(4, 4, 4)[:, order].reshape(4, 16)


def perceiver_layer(ours, attention, feed_forward, *, context=False):
    layout = lucid_attention(f"{ours}/attention", f"{attention}.fn")
    layout |= same(f"{ours}/attention/output/bias", f"{attention}.fn.to_out.bias")
    for name in ("query", "key", "value"):
        layout[f"{ours}/attention/{name}/bias"] = np.zeros(6)
    layout |= norm(f"{ours}/query_norm", f"{attention}.norm")
    if context:
        layout |= norm(f"{ours}/context_norm", f"{attention}.norm_context")
    layout |= norm(f"{ours}/norm", f"{feed_forward}.norm")
    layout |= linear(f"{ours}/feed_forward/wide", f"{feed_forward}.fn.net.0")
    return layout | linear(f"{ours}/feed_forward/narrow", f"{feed_forward}.fn.net.2")


@WIDE
def test_cross_attention_agrees_with_torchmultimodal(wide):
    layout = {}
    for name in ("query", "key", "value", "output"):
        layout |= linear(name, name)
    GOLDEN.check_module(
        "cross_attention",
        lambda: nn.CrossAttention(4, 6, num_heads=2, head_dim=2, rngs=rngs()),
        layout,
        lambda module, query, context, mask: module(query, context, context_mask=mask),
        wide=wide,
    )


@WIDE
def test_grouped_heads_and_rotary_positions_agree_with_x_transformers(wide):
    layout = kernel("key", "to_k") | kernel("value", "to_v")
    layout |= {
        f"{ours}/kernel": by_shared_head(theirs)
        for ours, theirs in (("query", "to_q"), ("output", "to_out"))
    }
    GOLDEN.check_module(
        "grouped_rotary",
        lambda: nn.CrossAttention(
            4, 6, num_heads=4, num_kv_heads=2, head_dim=4, use_bias=False, rngs=rngs()
        ),
        layout,
        lambda module, query, context, **positions: module(query, context, **positions),
        wide=wide,
    )


@WIDE
def test_the_resampler_agrees_with_flamingo(wide):
    layout = same("queries", "latents") | norm("norm", "norm")
    layout["time_embedding"] = lambda w: w["media_pos_emb"][:, 0]
    for k in range(2):
        attention, feed_forward = f"layers.{k}.0", f"layers.{k}.1"
        layout |= lucid_attention(f"layers/{k}/attention", attention)
        layout |= norm(f"layers/{k}/context_norm", f"{attention}.norm_media")
        layout |= norm(f"layers/{k}/query_norm", f"{attention}.norm_latents")
        layout |= norm(f"layers/{k}/norm", f"{feed_forward}.0")
        layout |= kernel(f"layers/{k}/feed_forward/wide", f"{feed_forward}.1")
        layout |= kernel(f"layers/{k}/feed_forward/narrow", f"{feed_forward}.3")
    GOLDEN.check_module(
        "resampler",
        lambda: nn.AttentionPool(
            4,
            num_queries=2,
            depth=2,
            num_heads=2,
            head_dim=3,
            hidden_features=8,
            num_times=2,
            rngs=rngs(),
        ),
        layout,
        lambda module, x: module(x),
        wide=wide,
    )


@WIDE
@pytest.mark.parametrize("immediate", [True, False], ids=["immediate", "every"])
def test_the_gated_block_agrees_with_flamingo(immediate, wide):
    """Where text has a medium before it; without one flamingo-pytorch's `every` is uniform."""
    layout = norm("norm", "attn.norm") | lucid_attention("attention", "attn")
    layout |= norm("feed_forward_norm", "ff.0")
    layout |= kernel("feed_forward/wide", "ff.1") | kernel("feed_forward/narrow", "ff.3")
    layout["attention/gate"] = lambda w: w["attn_gate"][0]
    layout["feed_forward_gate"] = lambda w: w["ff_gate"][0]
    GOLDEN.check_module(
        "gated_immediate" if immediate else "gated_every",
        lambda: nn.GatedCrossAttention(
            4, 4, num_heads=2, head_dim=3, hidden_features=8, immediate_only=immediate, rngs=rngs()
        ),
        layout,
        lambda module, text, media, locations: module(text, media, media_locations=locations),
        wide=wide,
    )


@WIDE
def test_latent_fusion_agrees_with_perceiver_io(wide):
    """One modality, whose projection and type embedding are an identity and 0 here."""
    layout = same("latents", "latents") | same("output_queries", "queries")
    layout |= {"projections/0/kernel": np.eye(4), "projections/0/bias": np.zeros(4)}
    layout |= {"type_embedding": np.zeros((1, 4))}
    block = "cross_attend_block.cross"
    layout |= perceiver_layer("reads/0", f"{block}_attn", f"{block}_ff", context=True)
    block = "layers.0.self_attns.0"
    layout |= perceiver_layer("processes/0", f"{block}.0", f"{block}.1")
    layout |= lucid_attention("decoder", "decoder_cross_attn.fn")
    layout |= same("decoder/output/bias", "decoder_cross_attn.fn.to_out.bias")
    for name in ("query", "key", "value"):
        layout[f"decoder/{name}/bias"] = np.zeros(6)
    layout |= norm("query_norm", "decoder_cross_attn.norm")
    layout |= norm("norm", "decoder_cross_attn.norm_context") | linear("output", "to_logits")
    GOLDEN.check_module(
        "perceiver_io",
        lambda: nn.LatentFusion(
            (4,),
            3,
            latent_features=4,
            num_latents=2,
            depth=1,
            num_heads=2,
            head_dim=3,
            decode="queries",
            num_outputs=3,
            rngs=rngs(),
        ),
        layout,
        lambda module, x, mask: module([x], masks=[mask]),
        wide=wide,
    )


@WIDE
def test_the_q_former_agrees_with_torchmultimodal(wide):
    layout = same("queries", "queries")
    for k in range(2):
        ours, theirs = f"layers/{k}", f"layers.{k}"
        layout |= torchmultimodal_attention(f"{ours}/self_attention", f"{theirs}.self_attention")
        layout |= norm(f"{ours}/self_attention_norm", f"{theirs}.self_attn_layernorm")
        if k == 0:
            cross = f"{theirs}.cross_attention"
            layout |= torchmultimodal_attention(f"{ours}/cross_attention", cross)
            layout |= norm(f"{ours}/cross_attention_norm", f"{theirs}.cross_attn_layernorm")
        for side, suffix in (("query", "_query"), ("text", "")):
            path = f"{theirs}.feedforward{suffix}.model"
            layout |= linear(f"{ours}/{side}_feed_forward/wide", f"{path}.0")
            layout |= linear(f"{ours}/{side}_feed_forward/narrow", f"{path}.2")
            path = f"{theirs}.feedforward_layernorm{suffix}"
            layout |= norm(f"{ours}/{side}_feed_forward_norm", path)
    GOLDEN.check_module(
        "q_former",
        lambda: nn.QFormerBlock(4, 6, num_queries=2, num_heads=2, hidden_features=6, rngs=rngs()),
        layout,
        lambda module, context, text: jnp.concatenate(module(context, text), axis=1),
        wide=wide,
    )


@WIDE
def test_the_attention_pool_agrees_with_big_vision(wide):
    at = "MultiHeadDotProductAttention_0"
    layout = {"queries": lambda w: w["probe"][0]}
    for name in ("query", "key", "value"):
        ours, theirs = f"layers/0/attention/{name}", f"{at}/{name}"
        layout[f"{ours}/kernel"] = lambda w, key=theirs: w[f"{key}/kernel"].reshape(4, 4)
        layout[f"{ours}/bias"] = lambda w, key=theirs: w[f"{key}/bias"].reshape(4)
    layout["layers/0/attention/output/kernel"] = lambda w: w[f"{at}/out/kernel"].reshape(4, 4)
    layout |= same("layers/0/attention/output/bias", f"{at}/out/bias")
    for name, path in (("wide", "Dense_0"), ("narrow", "Dense_1")):
        for part in ("kernel", "bias"):
            layout |= same(f"layers/0/feed_forward/{name}/{part}", f"MlpBlock_0/{path}/{part}")
    for part in ("scale", "bias"):
        layout |= same(f"layers/0/norm/{part}", f"LayerNorm_0/{part}")
    GOLDEN.check_module(
        "map_head",
        lambda: nn.AttentionPool(4, num_heads=2, hidden_features=6, rngs=rngs()),
        layout,
        lambda module, x: module(x),
        wide=wide,
    )


@WIDE
def test_normalized_queries_and_keys_agree_with_flax(wide):
    layout = same("output/bias", "out/bias")
    layout["output/kernel"] = lambda w: w["out/kernel"].reshape(6, 4)
    for name, width in (("query", 4), ("key", 6), ("value", 6)):
        layout[f"{name}/kernel"] = lambda w, name=name, width=width: w[f"{name}/kernel"].reshape(
            width, 6
        )
        layout[f"{name}/bias"] = lambda w, name=name: w[f"{name}/bias"].reshape(6)
    for name in ("query", "key"):
        layout |= same(f"{name}_norm/scale", f"{name}_ln/scale")
        layout[f"{name}_norm/bias"] = np.zeros(3)
    GOLDEN.check_module(
        "qk_norm",
        lambda: nn.CrossAttention(4, 6, num_heads=2, head_dim=3, qk_norm="layer", rngs=rngs()),
        layout,
        lambda module, query, context: module(query, context),
        wide=wide,
    )
