"""One row an operator: how to make it, what it reads, what it must write."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from datarax.core import Batch, CrossModalOperatorConfig, OperatorModule
from datarax.operators import (
    AlignmentOperator,
    AlignmentOperatorConfig,
    ContrastiveOperator,
    ContrastiveOperatorConfig,
    Crop,
    CropConfig,
    CrossAttentionOperator,
    CrossAttentionOperatorConfig,
    FusionOperator,
    FusionOperatorConfig,
    Normalize,
    NormalizeConfig,
    Reshape,
    ReshapeConfig,
    Resize,
    ResizeConfig,
    Sequential,
)

ROWS = 6


@dataclass(frozen=True)
class Row:
    """An operator and its data.

    Attributes:
      make: the operator with fresh parameters.
      shapes: of one record's input fields.
      out: the output field, and its shape in a record.
      absent_ok: a record without one field is processed all the same.
      relates_rows: a record's result depends on the others.
    """

    make: Callable[[], OperatorModule]
    shapes: dict[str, tuple[int, ...]]
    out: tuple[str, tuple[int, ...]]
    absent_ok: bool = False
    relates_rows: bool = False


PAIR = {"a": (4,), "b": (4,)}
MIXED = {"a": (4,), "b": (3,), "c": (5,)}


def _plain(kind, inputs, out, **options):
    config = CrossModalOperatorConfig(input_fields=inputs, output_fields=[out], **options)
    return lambda: kind(config, rngs=nnx.Rngs(0, noise=1))


def _fusion(method, **options):
    config = FusionOperatorConfig(
        input_fields=["a", "b", "c"],
        output_fields=["joint"],
        method=method,
        features={"a": 4, "b": 3, "c": 5},
        out_features=7,
        **options,
    )
    return lambda: FusionOperator(config, rngs=nnx.Rngs(0))


def _loss(method, inputs=("a", "b"), **options):
    widths = {name: MIXED[name][0] if options else 4 for name in inputs}
    config = ContrastiveOperatorConfig(
        input_fields=list(inputs),
        output_fields=["loss"],
        method=method,
        features=widths,
        **options,
    )
    return lambda: ContrastiveOperator(config, rngs=nnx.Rngs(0))


def _alignment(method):
    config = AlignmentOperatorConfig(input_fields=["a", "b"], output_fields=["loss"], method=method)
    return lambda: AlignmentOperator(config)


def _attention():
    config = CrossAttentionOperatorConfig(
        input_fields=["query", "context"],
        output_fields=["attended", "weights"],
        features={"query": 6, "context": 5},
        num_heads=2,
        context_mask="keep",
    )
    return CrossAttentionOperator(config, rngs=nnx.Rngs(0))


def _field(kind, config, **options):
    return lambda: kind(config(input_fields=["image"], output_fields=["image"], **options))


def _sequence():
    return Sequential(
        [
            _field(Crop, CropConfig, size=(4, 4))(),
            _field(Normalize, NormalizeConfig, mean=0.5, std=2.0)(),
        ]
    )


IMAGE = {"image": (6, 8, 3)}
TABLE = {
    "fusion plain": Row(
        _plain(FusionOperator, ["a", "b"], "joint"), PAIR, ("joint", (4,)), absent_ok=True
    ),
    **{
        f"fusion {method}": Row(_fusion(method), MIXED, ("joint", (7,)), absent_ok=True)
        for method in ("concat", "weighted_sum", "attention", "gated")
    },
    "fusion gated sigmoid": Row(
        _fusion("gated", gate="sigmoid"), MIXED, ("joint", (7,)), absent_ok=True
    ),
    "similarity": Row(_plain(ContrastiveOperator, ["a", "b"], "s"), PAIR, ("s", ())),
    "similarity of three": Row(
        _plain(ContrastiveOperator, ["a", "b", "c"], "s"), {**PAIR, "c": (4,)}, ("s", (2,))
    ),
    "info_nce": Row(_loss("info_nce"), PAIR, ("loss", ()), True, True),
    "info_nce smooth": Row(
        _loss("info_nce", projection_features=3, hidden_features=8, label_smoothing=0.1),
        {"a": (4,), "b": (3,)},
        ("loss", ()),
        True,
        True,
    ),
    "sigmoid": Row(_loss("sigmoid"), PAIR, ("loss", ()), True, True),
    "info_nce of three": Row(
        _loss("info_nce", ("a", "b", "c"), projection_features=6), MIXED, ("loss", ()), True, True
    ),
    "alignment plain": Row(_plain(AlignmentOperator, ["a", "b"], "loss"), PAIR, ("loss", ())),
    "alignment cosine": Row(_alignment("cosine"), PAIR, ("loss", ())),
    "alignment squared_error": Row(_alignment("squared_error"), PAIR, ("loss", ())),
    "alignment uniformity": Row(
        _alignment("alignment_uniformity"), PAIR, ("loss", ()), False, True
    ),
    "modality gap": Row(_alignment("modality_gap"), PAIR, ("loss", ()), False, True),
    "cross attention": Row(_attention, {"query": (3, 6), "context": (4, 5)}, ("attended", (3, 6))),
    "resize": Row(_field(Resize, ResizeConfig, size=(3, 4)), IMAGE, ("image", (3, 4, 3))),
    "crop": Row(_field(Crop, CropConfig, size=(4, 4)), IMAGE, ("image", (4, 4, 3))),
    "reshape": Row(_field(Reshape, ReshapeConfig, shape=(48, -1)), IMAGE, ("image", (48, 3))),
    "normalize": Row(
        _field(Normalize, NormalizeConfig, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0)),
        IMAGE,
        ("image", (6, 8, 3)),
    ),
    "sequential": Row(_sequence, IMAGE, ("image", (4, 4, 3))),
}


def batch_of(row: Row, seed: int = 0, rows: int = ROWS, dtype=jnp.float32, **parts) -> Batch:
    """Random records for an operator of the table."""
    rng = np.random.default_rng(seed)
    data = {
        name: jnp.asarray(rng.normal(size=(rows, *shape)), dtype)
        for name, shape in row.shapes.items()
    }
    if "context" in data:
        data["keep"] = jnp.asarray(rng.random((rows, 4)) < 0.7).at[:, 0].set(True)
    return Batch.from_parts(data, **parts)


def floats(batch: Batch) -> dict[str, jax.Array]:
    """The fields that have gradients."""
    return {n: x for n, x in batch.data.items() if jnp.issubdtype(x.dtype, jnp.floating)}
