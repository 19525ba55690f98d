"""Latent fusion: a few learned vectors read the tokens of all fields."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import jax.numpy as jnp
from flax import nnx

from datarax.core.presence import row_presence, with_presence
from datarax.nn.latent import Decode, LatentFusion
from datarax.operators.checks import check_choice, check_count, check_integer, check_positive
from datarax.operators.tokens import (
    TokenOperator,
    TokenOperatorConfig,
    check_masks,
    present_tokens,
)


@dataclass(frozen=True)
class LatentFusionOperatorConfig(TokenOperatorConfig):
    """How to fuse.

    Attributes:
      out_features: the width of the result.
      latent_features: width of the latents.
      num_latents: number of latents.
      num_reads: how often the latents read the fields.
      depth: layers of self-attention after each reading.
      decode: `"mean"` of the latents, or learned `"queries"` that attend to them.
      num_outputs: with `"queries"`, their number; `None`: one, and no axis for it.
      masks: for an input field the field with a bool for each of its tokens, True to keep.

    Raises:
      ValueError: unless there is one output field, with sizes and options that fit.
    """

    operation: str = field(default="latent_fusion", kw_only=True)
    out_features: int = field(kw_only=True)
    latent_features: int = field(default=256, kw_only=True)
    num_latents: int = field(default=32, kw_only=True)
    num_reads: int = field(default=1, kw_only=True)
    depth: int = field(default=2, kw_only=True)
    decode: Decode = field(default="mean", kw_only=True)
    num_outputs: int | None = field(default=None, kw_only=True)
    masks: dict[str, str] = field(default_factory=dict, kw_only=True, hash=False)

    def check_fields(self) -> None:
        """Raise unless there are as many fields as the operator takes."""
        check_count("output_fields", self.output_fields, [1])

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (
            ("out_features", self.out_features),
            ("latent_features", self.latent_features),
            ("num_latents", self.num_latents),
            ("num_reads", self.num_reads),
        ):
            check_positive(name, value)
        check_integer("depth", self.depth, low=0)
        check_choice("decode", self.decode, Decode)
        if self.num_outputs is not None:
            check_positive("num_outputs", self.num_outputs)
            if self.decode != "queries":
                raise ValueError(
                    f"num_outputs={self.num_outputs} is read by decode 'queries' only, "
                    f"got {self.decode!r}"
                )
        check_masks(self.masks, self.input_fields)
        self.width_of_head(self.latent_features)


class LatentFusionOperator(TokenOperator):
    """Fuse fields of tokens `[t_m, d_m]` into `[out_features]`, or `[num_outputs, out_features]`.

    A record needs one of the fields only: absent ones are not read. The output is present if any
    input is; see `nn.LatentFusion`.
    """

    config: LatentFusionOperatorConfig
    config_class = LatentFusionOperatorConfig
    built_from = (
        "features",
        "num_heads",
        "head_dim",
        "out_features",
        "latent_features",
        "num_latents",
        "num_reads",
        "depth",
        "decode",
        "num_outputs",
        "dropout",
    )

    def build(self, rngs: nnx.Rngs) -> None:
        """Make the module."""
        config = self.config
        self.fusion = LatentFusion(
            [config.features[name] for name in config.input_fields],
            config.out_features,
            latent_features=config.latent_features,
            num_latents=config.num_latents,
            num_reads=config.num_reads,
            depth=config.depth,
            num_heads=config.num_heads,
            head_dim=config.width_of_head(config.latent_features),
            decode=config.decode,
            num_outputs=config.num_outputs,
            dropout=config.dropout,
            rngs=rngs,
        )

    @property
    def required_fields(self) -> tuple[str, ...]:
        """None: absent fields are not read."""
        return ()

    def named_fields(self) -> Iterable[str | None]:
        """The masks."""
        return self.config.masks.values()

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """Fuse one record; see `nn.LatentFusion`."""
        fields = self.config.input_fields
        masks = present_tokens(data, metadata, fields, self.config.masks)
        fused = self.fusion(self._extract_inputs(data), masks=masks, rng_key=random_params)
        some = reduce(jnp.logical_or, row_presence(metadata, fields))
        metadata = with_presence(metadata, self.config.output_fields, [some])
        return self._store_outputs(data, [fused]), state, metadata
