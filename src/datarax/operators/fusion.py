"""Fusion: one vector from the modalities that a record has."""

from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx

from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig
from datarax.core.presence import row_presence, with_presence
from datarax.nn.fusion import AttentionFusion, ConcatFusion, GatedFusion, WeightedSumFusion
from datarax.operators.checks import check_choice, check_count, check_features, check_positive

FusionMethod = Literal["concat", "weighted_sum", "attention", "gated"]
Gate = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class FusionOperatorConfig(CrossModalOperatorConfig):
    """How to fuse.

    Attributes:
      method: `nn.ConcatFusion`, `WeightedSumFusion`, `AttentionFusion` or `GatedFusion`.
      features: the width of each input field.
      out_features: the width of the result.
      gate: read by the gated method only: a `"softmax"` over the modalities that are there, or a
        `"sigmoid"` for each (Arevalo et al., 2017, arXiv:1702.01992).

    Raises:
      ValueError: for an unknown choice, a width that lacks or is not positive, or more than one
        output field.
    """

    method: FusionMethod = field(default="attention", kw_only=True)
    features: dict[str, int] = field(kw_only=True, hash=False)
    out_features: int = field(kw_only=True)
    gate: Gate = field(default="softmax", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("method", self.method, FusionMethod)
        check_choice("gate", self.gate, Gate)
        check_features(self.features, self.input_fields)
        check_positive("out_features", self.out_features)
        check_count("output_fields", self.output_fields, [1])


class FusionOperator(CrossModalOperator):
    """Fuse the input fields `[d_m]` of a record into one output field `[d]`.

    With a plain `CrossModalOperatorConfig` it is a learned weighted sum of fields of equal width
    (`nn.WeightedSumFusion`), with a `FusionOperatorConfig` any of its methods. A record needs one
    of the fields only: the output is present if any input is.

    Example:
      >>> config = CrossModalOperatorConfig(input_fields=["image", "text"], output_fields=["joint"])
      >>> record = {"image": jnp.ones(3), "text": jnp.zeros(3)}
      >>> FusionOperator(config).apply(record, {}, None)[0]["joint"].tolist()
      [0.5, 0.5, 0.5]
    """

    built_from = ("method", "features", "out_features", "gate")

    def __init__(
        self,
        config: CrossModalOperatorConfig,
        *,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        check_count("output_fields", config.output_fields, [1])
        self.fusion = _fusion(config, rngs)

    @property
    def required_fields(self) -> tuple[str, ...]:
        """None: absent modalities are left out of the fusion."""
        return ()

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """Fuse one record; see `nn.fusion`."""
        presence = row_presence(metadata, self.config.input_fields)
        fused = self.fusion(self._extract_inputs(data), presence)
        some = reduce(jnp.logical_or, presence)
        return (
            self._store_outputs(data, [fused]),
            state,
            with_presence(metadata, self.config.output_fields, [some]),
        )


def _fusion(config: CrossModalOperatorConfig, rngs: nnx.Rngs | None) -> nnx.Module:
    if not isinstance(config, FusionOperatorConfig):
        return WeightedSumFusion([None] * len(config.input_fields))
    if rngs is None:
        raise ValueError(f"fusion by {config.method!r} draws its parameters: give rngs")
    widths = [config.features[name] for name in config.input_fields]
    out = config.out_features
    if config.method == "concat":
        return ConcatFusion(widths, out, rngs=rngs)
    if config.method == "weighted_sum":
        return WeightedSumFusion(widths, out, rngs=rngs)
    if config.method == "attention":
        return AttentionFusion(widths, out, rngs=rngs)
    return GatedFusion(widths, out, gate=config.gate, rngs=rngs)
