"""Rows of attention."""

import jax.numpy as jnp
from flax import nnx
from operator_row import Row

from datarax.operators import (
    GatedCrossAttentionOperator,
    GatedCrossAttentionOperatorConfig,
    build_operator,
)


class OpenGates(GatedCrossAttentionOperator):
    """A block whose gates are not closed, as they are at first: what is behind them shows."""

    def build(self, rngs):
        super().build(rngs)
        self.block.attention.gate[...] = jnp.float32(0.5)
        self.block.feed_forward_gate[...] = jnp.float32(-0.5)


def _gated():
    config = GatedCrossAttentionOperatorConfig(
        input_fields=["text", "media"],
        output_fields=["seen"],
        features={"text": 6, "media": 5},
        num_heads=2,
        head_dim=2,
        hidden_features=5,
        media_locations="places",
        text_mask="written",
        media_mask="shown",
    )
    return OpenGates(config, rngs=nnx.Rngs(0))


def _operator(operation, inputs, outputs, **options):
    table = {
        "operation": operation,
        "input_fields": list(inputs),
        "output_fields": list(outputs),
        "features": {name: shape[-1] for name, shape in inputs.items()},
        "num_heads": 2,
    }
    return lambda: build_operator(table | options, rngs=nnx.Rngs(0, noise=1))


def _bits(**shapes):
    """Masks of which each row keeps the first place."""

    def draw(rng, rows):
        bits = {name: rng.random((rows, *shape)) < 0.6 for name, shape in shapes.items()}
        return {name: jnp.asarray(x).at[:, 0].set(True) for name, x in bits.items()}

    return draw


DRAWS = {"dropout": 0.3, "stochastic": True, "stream_name": "noise"}

CROSS = {"query": (3, 6), "context": (4, 5)}
PLACES = CROSS | {"here": (3,), "there": (4,), "near": (3, 4)}
MEDIA = {"text": (3, 6), "media": (2, 2, 5)}
THREE = {"a": (2, 4), "b": (3, 5), "c": (2, 3)}
TEXT = {"scene": (3, 5), "text": (2, 6)}

SIZES = {"num_heads": 1, "head_dim": 4}
LOUD = {"features": {}, "dropout": 0.5}

ROWS = {
    "cross attention": Row(
        _operator("cross_attention", CROSS, ["attended", "weights"], context_mask="keep"),
        CROSS,
        ("attended", (3, 6)),
        reads=_bits(seeing=(3,)),
        changes={
            "out_features": 3,
            "use_bias": False,
            "gate": "tanh",
            "query_mask": "seeing",
            "context_mask": None,
            **SIZES,
            **LOUD,
        },
    ),
    "cross attention with positions": Row(
        _operator(
            "cross_attention",
            dict(list(PLACES.items())[:2]),
            ["attended"],
            num_kv_heads=1,
            head_dim=4,
            qk_norm="rms",
            query_positions="here",
            context_positions="there",
            bias="near",
            **DRAWS,
        ),
        PLACES,
        ("attended", (3, 6)),
        changes={
            "num_kv_heads": 2,
            "qk_norm": "layer",
            "query_positions": "there",
            "context_positions": "here",
            "rope_base": 10.0,
            "bias": None,
            "dropout": 0.6,
        },
    ),
    "gated cross attention": Row(
        _gated,
        MEDIA,
        ("seen", (3, 6)),
        reads=_bits(places=(3,), written=(3,), shown=(2, 2)),
        changes={
            "hidden_features": 4,
            "media_locations": None,
            "immediate_only": False,
            "text_mask": None,
            "media_mask": None,
            **SIZES,
            **LOUD,
        },
    ),
    "attention pool": Row(
        _operator("attention_pool", {"context": (4, 6)}, ["pooled"], mask="keep"),
        {"context": (4, 6)},
        ("pooled", (6,)),
        changes={
            "num_queries": 2,
            "depth": 2,
            "out_features": 4,
            "hidden_features": 3,
            "mask": None,
            **SIZES,
            **LOUD,
        },
    ),
    "attention pool resampler": Row(
        _operator(
            "attention_pool",
            {"context": (2, 4, 5)},
            ["pooled"],
            num_queries=2,
            depth=2,
            out_features=4,
            hidden_features=4,
            num_times=2,
            **DRAWS,
        ),
        {"context": (2, 4, 5)},
        ("pooled", (2, 2, 4)),
        changes={"num_times": 3},
    ),
    "co-attention": Row(
        _operator("co_attention", THREE, ["from_a", "from_b", "from_c"], masks={"b": "heard"}),
        THREE,
        ("from_a", (2, 8)),
        reads=_bits(heard=(3,)),
        changes={
            "method": "shared_similarity",
            "out_features": 3,
            "include_self": True,
            "masks": {},
            **SIZES,
            **LOUD,
        },
    ),
    "co-attention of a shared similarity": Row(
        _operator(
            "co_attention",
            {"a": (2, 4), "b": (3, 5)},
            ["from_a", "from_b"],
            method="shared_similarity",
            masks={"b": "heard"},
        ),
        {"a": (2, 4), "b": (3, 5)},
        ("from_a", (2, 4)),
        reads=_bits(heard=(3,)),
        changes={"method": "all_pairs"},
    ),
    "q-former": Row(
        _operator(
            "q_former",
            TEXT,
            ["queries", "read"],
            query_features=6,
            num_queries=2,
            num_layers=2,
            hidden_features=4,
            norm_eps=1e-5,
            masks={"text": "written", "scene": "shown"},
        ),
        TEXT,
        ("queries", (2, 6)),
        reads=_bits(written=(2,), shown=(3,)),
        changes={
            "query_features": 4,
            "num_queries": 3,
            "num_layers": 1,
            "cross_attention_every": 1,
            "text_attention": "separate",
            "hidden_features": 5,
            "activation": "relu",
            "norm_eps": 1e-2,
            "masks": {},
            **SIZES,
            **LOUD,
        },
    ),
    "latent fusion": Row(
        _operator(
            "latent_fusion",
            THREE,
            ["joint"],
            out_features=3,
            latent_features=4,
            num_latents=2,
            depth=1,
            masks={"b": "heard"},
        ),
        THREE,
        ("joint", (3,)),
        absent_ok=True,
        reads=_bits(heard=(3,)),
        changes={
            "out_features": 2,
            "latent_features": 6,
            "num_latents": 3,
            "num_reads": 2,
            "depth": 0,
            "decode": "queries",
            "num_outputs": 2,
            "masks": {},
            **SIZES,
            **LOUD,
        },
    ),
    "latent fusion by queries": Row(
        _operator(
            "latent_fusion",
            THREE,
            ["joint"],
            out_features=3,
            latent_features=4,
            num_latents=2,
            depth=0,
            decode="queries",
            num_outputs=2,
        ),
        THREE,
        ("joint", (2, 3)),
        absent_ok=True,
        changes={"num_outputs": None},
    ),
}
