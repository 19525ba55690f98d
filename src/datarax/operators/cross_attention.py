"""Cross-attention: the tokens of one field look at those of another."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from flax import nnx

from datarax.core.config import check_flag
from datarax.nn.attention import AttentionGate, CrossAttention, HeadNorm
from datarax.operators.checks import (
    check_choice,
    check_count,
    check_field_name,
    check_number,
    check_positive,
)
from datarax.operators.tokens import TokenOperator, TokenOperatorConfig, optional_field


@dataclass(frozen=True)
class CrossAttentionOperatorConfig(TokenOperatorConfig):
    """How to attend.

    Attributes:
      out_features: width of the result; `None` is the query's.
      num_kv_heads: heads of key and value, a divisor of `num_heads`; `None`: as many.
      use_bias: whether the four layers have biases.
      qk_norm: `"rms"` or `"layer"` norm of each head of query and key; `None`: none.
      gate: `"tanh"` or `"tanh_per_head"`, initially closed; `None`: none.
      query_mask, context_mask: fields with a bool for each token, True to keep; `None` keeps all.
      bias: field that is added to the logits, broadcastable to [num_heads, t, s]; -inf masks.
      query_positions, context_positions: fields with the position of each token, for rotary
        positions; both or none.
      rope_base: of the rotary positions; see `functional.rotary_embedding`.

    Raises:
      ValueError: unless there are two input fields (query, context) and one or two output fields
        (attended, weights), with sizes and options that fit.
    """

    operation: str = field(default="cross_attention", kw_only=True)
    out_features: int | None = field(default=None, kw_only=True)
    num_kv_heads: int | None = field(default=None, kw_only=True)
    use_bias: bool = field(default=True, kw_only=True)
    qk_norm: HeadNorm | None = field(default=None, kw_only=True)
    gate: AttentionGate | None = field(default=None, kw_only=True)
    query_mask: str | None = field(default=None, kw_only=True)
    context_mask: str | None = field(default=None, kw_only=True)
    bias: str | None = field(default=None, kw_only=True)
    query_positions: str | None = field(default=None, kw_only=True)
    context_positions: str | None = field(default=None, kw_only=True)
    rope_base: float = field(default=10000.0, kw_only=True)

    def check_fields(self) -> None:
        """Raise unless there are as many fields as the operator takes."""
        check_count("input_fields", self.input_fields, [2])
        check_count("output_fields", self.output_fields, [1, 2])

    def __post_init__(self) -> None:
        super().__post_init__()
        head_dim = self.width_of_head(self.features[self.input_fields[0]])
        check_flag("use_bias", self.use_bias)
        for name in (
            "query_mask",
            "context_mask",
            "bias",
            "query_positions",
            "context_positions",
        ):
            check_field_name(name, vars(self)[name])
        if self.out_features is not None:
            check_positive("out_features", self.out_features)
        if self.num_kv_heads is not None:
            check_positive("num_kv_heads", self.num_kv_heads)
            if self.num_heads % self.num_kv_heads:
                raise ValueError(
                    f"num_kv_heads must divide num_heads {self.num_heads}, got {self.num_kv_heads}"
                )
        if self.qk_norm is not None:
            check_choice("qk_norm", self.qk_norm, HeadNorm)
        if self.gate is not None:
            check_choice("gate", self.gate, AttentionGate)
        self._check_positions(head_dim)

    def _check_positions(self, head_dim: int) -> None:
        check_number("rope_base", self.rope_base, low=1, high=float("inf"), open_low=True)
        if (self.query_positions is None) != (self.context_positions is None):
            raise ValueError(
                "query_positions and context_positions go together, got "
                f"{self.query_positions!r} and {self.context_positions!r}"
            )
        if self.query_positions is None and self.rope_base != 10000.0:
            raise ValueError(
                f"rope_base={self.rope_base} is read with query_positions and "
                "context_positions only"
            )
        if self.query_positions is not None and head_dim % 2:
            raise ValueError(f"rotary positions need an even head_dim, got {head_dim}")


class CrossAttentionOperator(TokenOperator):
    """Multi-head attention from the query field `[t, d]` to the context field `[s, e]`.

    Writes the attended tokens `[t, out_features]` and, with a second output field, the weights
    `[num_heads, t, s]`. A query token that is masked, or that has no context left, gives exactly 0
    with gradient 0; see `nn.CrossAttention`.
    """

    config: CrossAttentionOperatorConfig
    config_class = CrossAttentionOperatorConfig
    built_from = (
        "features",
        "num_heads",
        "head_dim",
        "out_features",
        "num_kv_heads",
        "use_bias",
        "qk_norm",
        "gate",
        "dropout",
        "rope_base",
    )

    def build(self, rngs: nnx.Rngs) -> None:
        """Make the module."""
        config = self.config
        query, context = (config.features[name] for name in config.input_fields)
        self.attention = CrossAttention(
            query,
            context,
            num_heads=config.num_heads,
            head_dim=config.width_of_head(query),
            num_kv_heads=config.num_kv_heads,
            out_features=config.out_features,
            use_bias=config.use_bias,
            qk_norm=config.qk_norm,
            rope_base=config.rope_base,
            gate=config.gate,
            dropout=config.dropout,
            rngs=rngs,
        )

    def named_fields(self) -> Iterable[str | None]:
        """Masks, bias and positions."""
        config = self.config
        return (
            config.query_mask,
            config.context_mask,
            config.bias,
            config.query_positions,
            config.context_positions,
        )

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """Attend within one record; see `nn.CrossAttention`."""
        query, context = self._extract_inputs(data)
        query_mask, context_mask, bias, query_positions, context_positions = (
            optional_field(data, name) for name in self.named_fields()
        )
        options: dict[str, Any] = {
            "query_mask": query_mask,
            "context_mask": context_mask,
            "bias": bias,
            "query_positions": query_positions,
            "context_positions": context_positions,
            "rng_key": random_params,
        }
        # With the weights as an output all of them have to be there at once.
        if len(self.config.output_fields) == 1:
            outputs = [self.attention(query, context, **options)]
        else:
            outputs = list(self.attention(query, context, **options, return_weights=True))
        return self._store_outputs(data, outputs), state, metadata
