"""The attention blocks of the originals, with their weights.

x-transformers computes softmax and rotary frequencies in float32; here it runs in float64, as does
torchmultimodal's `Fp32LayerNorm`. Left out: torchmultimodal's AttentionPooler (another form of pool
than ours, which are those of big_vision and Flamingo) and MultiBench's MULTModel (its transformers
are not ours; a pair of co-attention is a cross-attention).
"""

from functools import partial

import flax.linen as nn
import numpy as np
import torch

from golden.linen import SCOPE, linen_case
from golden.recorder import Recorder, undone_casts
from golden.sources import Sources, packaged


def record(sources: Sources) -> None:
    golden = Recorder("attention", seed=20243)
    cross_attention(golden)
    grouped_rotary(golden)
    flamingo(golden)
    perceiver(golden)
    q_former(golden)
    map_head(golden, sources)
    normalized(golden)
    golden.save()


def drawn(module: torch.nn.Module) -> torch.nn.Module:
    """The module with normal weights: gates start at 0, and norms at 1."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    return module


def cross_attention(golden: Recorder) -> None:
    from torchmultimodal.modules.layers.attention import MultiHeadAttention

    module = drawn(MultiHeadAttention(4, 6, 2))
    mask = np.array([[True, True, True, False, False], [True, False, True, True, True]])
    golden.add(
        "cross_attention",
        packaged("torchmultimodal-nightly", "MultiHeadAttention"),
        lambda query, context, mask: module(
            query, context, attention_mask=mask[:, None, None, :].expand(-1, 2, 3, -1)
        ),
        {"query": golden.normal(2, 3, 4), "context": golden.normal(2, 5, 6)},
        constants={"mask": mask},
        weights=dict(module.named_parameters()),
    )


def grouped_rotary(golden: Recorder) -> None:
    from x_transformers.x_transformers import Attention, RotaryEmbedding

    module = drawn(Attention(dim=4, dim_context=6, heads=4, kv_heads=2, dim_head=4))
    module.attend.attn_fn = partial(torch.nn.functional.softmax, dim=-1)
    with undone_casts():
        rotary = RotaryEmbedding(4)

    def attend(query, context, query_positions, context_positions):
        with undone_casts():
            return module(
                query,
                context,
                rotary_pos_emb=rotary(query_positions.to(query)),
                context_rotary_pos_emb=rotary(context_positions.to(query)),
            )

    golden.add(
        "grouped_rotary",
        packaged("x-transformers", "Attention(kv_heads=2), RotaryEmbedding"),
        attend,
        {"query": golden.normal(2, 3, 4), "context": golden.normal(2, 5, 6)},
        constants={
            "query_positions": np.array([2, 7, 40]),
            "context_positions": np.array([0, 3, 4, 9, 60]),
        },
        weights=dict(module.named_parameters()),
    )


def flamingo(golden: Recorder) -> None:
    from flamingo_pytorch import GatedCrossAttentionBlock, PerceiverResampler

    sizes = {"dim": 4, "dim_head": 3, "heads": 2, "ff_mult": 2}
    module = drawn(PerceiverResampler(depth=2, num_latents=2, num_media_embeds=2, **sizes))
    golden.add(
        "resampler",
        packaged("flamingo-pytorch", "PerceiverResampler"),
        module.forward,
        {"x": golden.normal(2, 2, 3, 4)},
        weights=dict(module.named_parameters()),
    )
    locations = np.zeros((2, 6), bool)
    locations[0, 1] = locations[0, 3] = locations[1, 0] = True
    block = drawn(GatedCrossAttentionBlock(**sizes))
    golden.add(
        "gated_immediate",
        packaged("flamingo-pytorch", "GatedCrossAttentionBlock"),
        lambda text, media, locations: block(text, media, media_locations=locations),
        {"text": golden.normal(2, 6, 4), "media": golden.normal(2, 2, 3, 4)},
        constants={"locations": locations},
        weights=dict(block.named_parameters()),
    )
    # Text before any medium is left out: there the original attends uniformly, the paper not.
    locations = locations.copy()
    locations[:, 0] = True
    locations[0, 1] = False
    every = drawn(GatedCrossAttentionBlock(only_attend_immediate_media=False, **sizes))
    golden.add(
        "gated_every",
        packaged("flamingo-pytorch", "GatedCrossAttentionBlock(only_attend_immediate_media=False)"),
        lambda text, media, locations: every(text, media, media_locations=locations),
        {"text": golden.normal(2, 6, 4), "media": golden.normal(2, 2, 3, 4)},
        constants={"locations": locations},
        weights=dict(every.named_parameters()),
    )


def perceiver(golden: Recorder) -> None:
    from perceiver_pytorch.perceiver_io import PerceiverIO

    heads = {"cross_heads": 2, "latent_heads": 2, "cross_dim_head": 3, "latent_dim_head": 3}
    module = PerceiverIO(
        depth=1, dim=4, queries_dim=4, logits_dim=3, num_latents=2, latent_dim=4, **heads
    )
    drawn(module)
    queries = torch.nn.Parameter(torch.tensor(golden.normal(3, 4)))
    mask = np.array([[True, True, True, False, False], [True, False, True, True, True]])
    golden.add(
        "perceiver_io",
        packaged("perceiver-pytorch", "PerceiverIO"),
        lambda x, mask: module(x, mask=mask, queries=queries),
        {"x": golden.normal(2, 5, 4)},
        constants={"mask": mask},
        weights=dict(module.named_parameters()) | {"queries": queries},
    )


def q_former(golden: Recorder) -> None:
    from torchmultimodal.models.blip2.qformer_layers import QformerEncoder

    module = drawn(QformerEncoder(2, 4, 6, 2, dim_kv=6, activation=torch.nn.GELU))
    queries = torch.nn.Parameter(torch.tensor(golden.normal(2, 4)))

    def encode(context, text):
        together = torch.cat([queries.expand(len(text), -1, -1), text], dim=1)
        with undone_casts():
            return module(together, context, query_length=2)[0]

    golden.add(
        "q_former",
        packaged("torchmultimodal-nightly", "blip2/qformer_layers.py:QformerEncoder"),
        encode,
        {"context": golden.normal(2, 5, 6), "text": golden.normal(2, 3, 4)},
        weights=dict(module.named_parameters()) | {"queries": queries},
    )


def map_head(golden: Recorder, sources: Sources) -> None:
    repository, path = "google-research/big_vision", "big_vision/models/vit.py"
    head = sources.load(repository, path, ["MlpBlock", "MAPHead"], SCOPE)["MAPHead"]
    linen_case(
        golden,
        "map_head",
        sources.name(repository, f"{path}:MAPHead"),
        head(mlp_dim=6, num_heads=2),
        lambda apply, x: apply(x),
        {"x": golden.normal(2, 5, 4)},
    )


def normalized(golden: Recorder) -> None:
    """Normalised queries and keys; flax's norms have no bias."""
    linen_case(
        golden,
        "qk_norm",
        packaged("flax", "linen.MultiHeadDotProductAttention(normalize_qk=True)"),
        nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=6, normalize_qk=True),
        lambda apply, query, context: apply(query, context),
        {"query": golden.normal(2, 3, 4), "context": golden.normal(2, 5, 6)},
    )
