"""Cross-attention: the tokens of one field look at those of another."""

from dataclasses import dataclass, field
from typing import Any

from flax import nnx

from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.fields import get_field, require_fields
from datarax.nn.attention import CrossAttention
from datarax.operators.checks import check_count, check_features, check_positive


@dataclass(frozen=True)
class CrossAttentionOperatorConfig(CrossModalOperatorConfig):
    """How to attend.

    Attributes:
      features: the width of the query field and of the context field.
      num_heads: number of heads.
      head_dim: width of one head; `None` divides the query's width by the number of heads.
      out_features: width of the result; `None` is the query's.
      query_mask, context_mask: fields with a bool for each token, True to keep; `None` keeps all.

    Raises:
      ValueError: unless there are two input fields (query, context) and one or two output fields
        (attended, weights), with sizes that fit.
    """

    operation: str = field(default="cross_attention", kw_only=True)
    features: dict[str, int] = field(kw_only=True, hash=False)
    num_heads: int = field(default=8, kw_only=True)
    head_dim: int | None = field(default=None, kw_only=True)
    out_features: int | None = field(default=None, kw_only=True)
    query_mask: str | None = field(default=None, kw_only=True)
    context_mask: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("input_fields", self.input_fields, [2])
        check_count("output_fields", self.output_fields, [1, 2])
        check_features(self.features, self.input_fields)
        check_positive("num_heads", self.num_heads)
        width = self.features[self.input_fields[0]]
        if self.head_dim is not None:
            check_positive("head_dim", self.head_dim)
        elif width % self.num_heads:
            raise ValueError(
                f"num_heads {self.num_heads} does not divide the query's width {width}: "
                "give head_dim"
            )
        if self.out_features is not None:
            check_positive("out_features", self.out_features)


class CrossAttentionOperator(CrossModalOperator):
    """Multi-head attention from the query field `[t, d]` to the context field `[s, e]`.

    Writes the attended tokens `[t, out_features]` and, with a second output field, the weights
    `[num_heads, t, s]`. A query token that is masked, or that has no context left, gives exactly 0
    with gradient 0; see `nn.CrossAttention`.

    Raises:
      ValueError: without a `CrossAttentionOperatorConfig`, which has the sizes, or without rngs.
    """

    config: CrossAttentionOperatorConfig
    built_from = ("features", "num_heads", "head_dim", "out_features")

    def __init__(
        self,
        config: CrossModalOperatorConfig,
        *,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        if not isinstance(config, CrossAttentionOperatorConfig):
            raise ValueError(
                "cross-attention needs sizes: use CrossAttentionOperatorConfig(features={field: "
                f"width}}, num_heads=...), got {type(config).__name__}"
            )
        if rngs is None:
            raise ValueError("cross-attention draws its parameters: give rngs")
        query, context = (config.features[name] for name in config.input_fields)
        self.attention = CrossAttention(
            query,
            context,
            num_heads=config.num_heads,
            head_dim=config.head_dim or query // config.num_heads,
            out_features=config.out_features,
            rngs=rngs,
        )

    def check_batch(self, batch: Batch) -> None:
        """Raise as `CrossModalOperator.check_batch`, and if a mask field is missing."""
        super().check_batch(batch)
        names = (self.config.query_mask, self.config.context_mask)
        require_fields(batch.data, [name for name in names if name is not None])

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
        names = (self.config.query_mask, self.config.context_mask)
        query_mask, context_mask = (n if n is None else get_field(data, n) for n in names)
        attended, weights = self.attention(
            query, context, query_mask=query_mask, context_mask=context_mask, return_weights=True
        )
        outputs = [attended, weights][: len(self.config.output_fields)]
        return self._store_outputs(data, outputs), state, metadata
