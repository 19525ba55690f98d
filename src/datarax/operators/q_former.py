"""The querying transformer: a fixed number of vectors that read a field, with text beside."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
from flax import nnx

from datarax.core.presence import row_presence, with_presence
from datarax.functional.attention.token_masks import TextAttention
from datarax.nn.feed_forward import Activation
from datarax.nn.q_former import QFormerBlock
from datarax.operators.checks import check_choice, check_count, check_number, check_positive
from datarax.operators.tokens import (
    TokenOperator,
    TokenOperatorConfig,
    check_masks,
    present_tokens,
)


@dataclass(frozen=True)
class QFormerOperatorConfig(TokenOperatorConfig):
    """How to read.

    Attributes:
      query_features: width of the queries, and of the text.
      num_queries: number of learned queries.
      num_layers: number of layers.
      cross_attention_every: one layer in so many has cross-attention, the first one always.
      text_attention: which of queries and text see which; see `functional.query_text_mask`.
      hidden_features: width between the feed-forward layers; `None`: four times `query_features`.
      activation: of the feed-forward layers; see `nn.FeedForward`.
      norm_eps: of the layer norms.
      masks: for an input field the field with a bool for each of its tokens, True to keep.

    Raises:
      ValueError: unless there are one or two input fields (context, text) and at most as many
        output fields (queries, text), with sizes that fit.
    """

    operation: str = field(default="q_former", kw_only=True)
    query_features: int = field(kw_only=True)
    num_queries: int = field(default=32, kw_only=True)
    num_layers: int = field(default=2, kw_only=True)
    cross_attention_every: int = field(default=2, kw_only=True)
    text_attention: TextAttention = field(default="bidirectional", kw_only=True)
    hidden_features: int | None = field(default=None, kw_only=True)
    activation: Activation = field(default="gelu", kw_only=True)
    norm_eps: float = field(default=1e-12, kw_only=True)
    masks: dict[str, str] = field(default_factory=dict, kw_only=True, hash=False)

    def check_fields(self) -> None:
        """Raise unless there are as many fields as the operator takes."""
        check_count("input_fields", self.input_fields, [1, 2])
        check_count("output_fields", self.output_fields, range(1, len(self.input_fields) + 1))

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (
            ("query_features", self.query_features),
            ("num_queries", self.num_queries),
            ("num_layers", self.num_layers),
            ("cross_attention_every", self.cross_attention_every),
        ):
            check_positive(name, value)
        if self.hidden_features is not None:
            check_positive("hidden_features", self.hidden_features)
        check_choice("text_attention", self.text_attention, TextAttention)
        check_choice("activation", self.activation, Activation)
        check_number("norm_eps", self.norm_eps, low=0, high=1, open_low=True)
        check_masks(self.masks, self.input_fields)
        self.width_of_head(self.query_features)
        self._check_text()

    def _check_text(self) -> None:
        texts = self.input_fields[1:]
        if texts and self.features[texts[0]] != self.query_features:
            raise ValueError(
                f"the text is read with the queries: features[{texts[0]!r}] must be "
                f"query_features {self.query_features}, got {self.features[texts[0]]}"
            )
        if not texts and self.text_attention != "bidirectional":
            raise ValueError(f"text_attention={self.text_attention!r} is read with a text only")


class QFormerOperator(TokenOperator):
    """Learned queries `[n, query_features]` that read the context `[s, e]`, beside text `[t, d]`.

    The first output is the queries', a second one the text's. A record needs one field only: an
    absent text is not seen; without context the queries are 0 and the text sees text alone. See
    `nn.QFormerBlock`.
    """

    config: QFormerOperatorConfig
    config_class = QFormerOperatorConfig
    built_from = (
        "features",
        "num_heads",
        "head_dim",
        "query_features",
        "num_queries",
        "num_layers",
        "cross_attention_every",
        "text_attention",
        "hidden_features",
        "activation",
        "norm_eps",
        "dropout",
    )

    def build(self, rngs: nnx.Rngs) -> None:
        """Make the module."""
        config = self.config
        self.block = QFormerBlock(
            config.query_features,
            config.features[config.input_fields[0]],
            num_queries=config.num_queries,
            num_layers=config.num_layers,
            cross_attention_every=config.cross_attention_every,
            text_attention=config.text_attention,
            num_heads=config.num_heads,
            head_dim=config.width_of_head(config.query_features),
            hidden_features=config.hidden_features,
            activation=config.activation,
            norm_eps=config.norm_eps,
            dropout=config.dropout,
            rngs=rngs,
        )

    @property
    def required_fields(self) -> tuple[str, ...]:
        """None: see the class."""
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
        """Read one record; see `nn.QFormerBlock`."""
        fields, outputs = self.config.input_fields, self.config.output_fields
        inputs = self._extract_inputs(data)
        masks = present_tokens(data, metadata, fields, self.config.masks)
        results = self.block(
            *inputs,
            context_mask=masks[0],
            text_mask=masks[1] if len(masks) > 1 else None,
            rng_key=random_params,
        )
        present = row_presence(metadata, fields)[: len(outputs)]
        metadata = with_presence(metadata, outputs, [jnp.asarray(x) for x in present])
        return self._store_outputs(data, results[: len(outputs)]), state, metadata
