"""Co-attention: fields of tokens that look at each other."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import jax.numpy as jnp
from flax import nnx

from datarax.core.config import check_flag
from datarax.core.presence import row_presence, with_presence
from datarax.nn.co_attention import CoAttention, CoAttentionMethod
from datarax.operators.checks import check_choice, check_count, check_options, check_positive
from datarax.operators.tokens import (
    TokenOperator,
    TokenOperatorConfig,
    check_masks,
    present_tokens,
)


@dataclass(frozen=True)
class CoAttentionOperatorConfig(TokenOperatorConfig):
    """How fields look at each other.

    Attributes:
      method: `"all_pairs"`, or for two fields `"shared_similarity"`; see `nn.CoAttention`.
      out_features: width of what a field sees in one other; `None` is its own.
      include_self: with `"all_pairs"`, each field looks at itself too.
      masks: for an input field the field with a bool for each of its tokens, True to keep.

    Raises:
      ValueError: unless there are two or more input fields and as many output fields, with sizes
        and options that fit.
    """

    operation: str = field(default="co_attention", kw_only=True)
    method: CoAttentionMethod = field(default="all_pairs", kw_only=True)
    out_features: int | None = field(default=None, kw_only=True)
    include_self: bool = field(default=False, kw_only=True)
    masks: dict[str, str] = field(default_factory=dict, kw_only=True, hash=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("method", self.method, CoAttentionMethod)
        count = len(self.input_fields)
        if count < 2 or (self.method == "shared_similarity" and count > 2):
            wanted = "exactly two" if self.method == "shared_similarity" else "two or more"
            raise ValueError(
                f"method {self.method!r} takes {wanted} input_fields, got {self.input_fields}"
            )
        check_count("output_fields", self.output_fields, [count])
        check_flag("include_self", self.include_self)
        check_options(
            self,
            self.method,
            {"all_pairs": ["include_self", "dropout"], "shared_similarity": []},
        )
        check_masks(self.masks, self.input_fields)
        if self.out_features is not None:
            check_positive("out_features", self.out_features)
        self.width_of_head(self.features[self.input_fields[0]])


class CoAttentionOperator(TokenOperator):
    """Each field of tokens `[t_m, d_m]` looks at the others; one output a field, in their order.

    With `"all_pairs"` what a field sees in each other one lies side by side,
    `[t_m, (M - 1) out_features]`. An absent field sees nothing and is not seen. An output is
    present where its field and any field that it looks at are.
    """

    config: CoAttentionOperatorConfig
    config_class = CoAttentionOperatorConfig
    built_from = (
        "features",
        "num_heads",
        "head_dim",
        "method",
        "out_features",
        "include_self",
        "dropout",
    )

    def build(self, rngs: nnx.Rngs) -> None:
        """Make the module."""
        config = self.config
        widths = [config.features[name] for name in config.input_fields]
        self.attention = CoAttention(
            widths,
            method=config.method,
            num_heads=config.num_heads,
            head_dim=config.width_of_head(widths[0]),
            out_features=config.out_features,
            include_self=config.include_self,
            dropout=config.dropout,
            rngs=rngs,
        )

    @property
    def required_fields(self) -> tuple[str, ...]:
        """None: absent fields are not seen."""
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
        """Attend within one record; see `nn.CoAttention`."""
        fields = self.config.input_fields
        masks = present_tokens(data, metadata, fields, self.config.masks)
        outputs = self.attention(self._extract_inputs(data), masks=masks, rng_key=random_params)
        present = row_presence(metadata, fields)
        there = []
        for i, own in enumerate(present):
            seen = [x for j, x in enumerate(present) if j != i or self.config.include_self]
            there.append(own & reduce(jnp.logical_or, seen))
        metadata = with_presence(metadata, self.config.output_fields, there)
        return self._store_outputs(data, outputs), state, metadata
