"""Gated cross-attention: text that sees media."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from flax import nnx

from datarax.core.config import check_flag
from datarax.nn.gated_attention import GatedCrossAttention
from datarax.operators.checks import check_count, check_field_name, check_positive
from datarax.operators.tokens import (
    TokenOperator,
    TokenOperatorConfig,
    optional_field,
    present_tokens,
)


@dataclass(frozen=True)
class GatedCrossAttentionOperatorConfig(TokenOperatorConfig):
    """How text sees media.

    Attributes:
      hidden_features: width between the feed-forward layers; `None`: four times the text's.
      media_locations: field with a bool for each text token, True for one that stands for a medium;
        `None`: all text sees all media.
      immediate_only: with locations, a token sees the last medium before it only.
      text_mask: field with a bool for each text token; `None` keeps all.
      media_mask: field with a bool for each media token [m, n]; `None` keeps all.

    Raises:
      ValueError: unless there are two input fields (text, media) and one output field, with sizes
        that fit.
    """

    operation: str = field(default="gated_cross_attention", kw_only=True)
    hidden_features: int | None = field(default=None, kw_only=True)
    media_locations: str | None = field(default=None, kw_only=True)
    immediate_only: bool = field(default=True, kw_only=True)
    text_mask: str | None = field(default=None, kw_only=True)
    media_mask: str | None = field(default=None, kw_only=True)

    def check_fields(self) -> None:
        """Raise unless there are as many fields as the operator takes."""
        check_count("input_fields", self.input_fields, [2])
        check_count("output_fields", self.output_fields, [1])

    def __post_init__(self) -> None:
        super().__post_init__()
        self.width_of_head(self.features[self.input_fields[0]])
        if self.hidden_features is not None:
            check_positive("hidden_features", self.hidden_features)
        check_flag("immediate_only", self.immediate_only)
        for name in ("media_locations", "text_mask", "media_mask"):
            check_field_name(name, vars(self)[name])
        if self.media_locations is None and not self.immediate_only:
            raise ValueError("immediate_only=False is read with media_locations only, got None")


class GatedCrossAttentionOperator(TokenOperator):
    """Flamingo's block on the text field `[t, d]` and the media field `[m, n, e]`.

    A record needs text only: without media the text passes the gated feed-forward layer alone. At
    first the block is the identity; see `nn.GatedCrossAttention`.
    """

    config: GatedCrossAttentionOperatorConfig
    config_class = GatedCrossAttentionOperatorConfig
    built_from = (
        "features",
        "num_heads",
        "head_dim",
        "hidden_features",
        "immediate_only",
        "dropout",
    )

    def build(self, rngs: nnx.Rngs) -> None:
        """Make the module."""
        config = self.config
        text, media = (config.features[name] for name in config.input_fields)
        self.block = GatedCrossAttention(
            text,
            media,
            num_heads=config.num_heads,
            head_dim=config.width_of_head(text),
            hidden_features=config.hidden_features,
            immediate_only=config.immediate_only,
            dropout=config.dropout,
            rngs=rngs,
        )

    @property
    def required_fields(self) -> tuple[str, ...]:
        """The text."""
        return (self.config.input_fields[0],)

    def named_fields(self) -> Iterable[str | None]:
        """Locations and masks."""
        return (self.config.media_locations, self.config.text_mask, self.config.media_mask)

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """Let the text of one record see its media; see `nn.GatedCrossAttention`."""
        text, media = self._extract_inputs(data)
        fields = self.config.input_fields
        names = zip(fields, (self.config.text_mask, self.config.media_mask), strict=True)
        masks = {name: mask for name, mask in names if mask is not None}
        text_mask, media_mask = present_tokens(data, metadata, fields, masks)
        seen = self.block(
            text,
            media,
            media_locations=optional_field(data, self.config.media_locations),
            text_mask=text_mask,
            media_mask=media_mask,
            rng_key=random_params,
        )
        return self._store_outputs(data, [seen]), state, metadata
