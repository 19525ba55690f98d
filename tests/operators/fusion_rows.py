"""Rows of fusion."""

import jax.numpy as jnp
from flax import nnx
from operator_row import MIXED, PAIR, Row, plain

from datarax.operators import FusionOperator, FusionOperatorConfig

TWO = {"a": (4,), "b": (3,)}
TOKENS = {"a": (4,), "b": (5, 3)}


def _make(method, shapes, *, outputs=("joint",), out_features=6, **options):
    config = FusionOperatorConfig(
        input_fields=list(shapes),
        output_fields=list(outputs),
        method=method,
        features={name: shape[-1] for name, shape in shapes.items()},
        out_features=out_features,
        **options,
    )
    return lambda: FusionOperator(config, rngs=nnx.Rngs(0))


def _row(method, shapes=MIXED, *, changes=None, reads=None, **options):
    size = options.get("out_features", 6)
    return Row(
        _make(method, shapes, **options),
        shapes,
        ("joint", (size,)),
        absent_ok=True,
        changes=changes or {},
        reads=reads,
    )


def _keep(rng, rows):
    return {"keep": jnp.asarray(rng.random((rows, 5)) < 0.6).at[:, 0].set(True)}


SMALL = {"hidden_features": 4, "num_heads": 1, "mlp_features": 4, "token_masks": {"b": "keep"}}
ROWS = {
    "fusion plain": Row(
        plain(FusionOperator, ["a", "b"], "joint"), PAIR, ("joint", (4,)), absent_ok=True
    ),
    "fusion concat": _row(
        "concat",
        changes={
            "method": "sum",
            "features": {"a": 4, "b": 3},
            "out_features": 5,
            "mlp_features": 3,
        },
    ),
    "fusion weighted_sum": _row("weighted_sum"),
    "fusion attention": _row("attention", changes={"scores": "joint"}),
    "fusion gated": _row("gated", changes={"gate": "sigmoid"}),
    "fusion gate": _row("gate", TWO, changes={"conditioner": "b", "hidden_features": 5}),
    "fusion film": _row("film", TWO, conditioner="b", changes={"conditioner": "a"}),
    "fusion mfh": _row("mfh", rank=2, changes={"activation": "relu", "output_activation": "relu"}),
    "fusion block": _row(
        "block", rank=2, chunks=2, normalize="chunks", changes={"chunks": 3, "normalize": "whole"}
    ),
    "fusion low_rank_tensor": _row("low_rank_tensor", rank=2, changes={"rank": 3}),
    "fusion product_of_experts": _row(
        "product_of_experts", outputs=("joint", "variance"), changes={"eps": 0.5}
    ),
    "fusion transformer": _row(
        "transformer",
        TOKENS,
        reads=_keep,
        depth=1,
        readout="cls",
        **SMALL,
        changes={
            "readout": "mean",
            "depth": 2,
            "num_heads": 2,
            "mlp_features": 5,
            "token_masks": None,
        },
    ),
    "fusion bottleneck": _row(
        "bottleneck",
        TOKENS,
        reads=_keep,
        depth=1,
        fusion_layer=0,
        num_bottlenecks=2,
        **SMALL,
        changes={"num_bottlenecks": 1, "fusion_layer": 1},
    ),
    "fusion multiplicative": _row("multiplicative", TWO, changes={"form": "scalar"}),
}
