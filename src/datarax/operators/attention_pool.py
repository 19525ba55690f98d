"""Attention pooling: a fixed number of vectors from the tokens of a field."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from flax import nnx

from datarax.nn.pooling import AttentionPool
from datarax.operators.checks import check_count, check_field_name, check_positive
from datarax.operators.tokens import TokenOperator, TokenOperatorConfig, optional_field


@dataclass(frozen=True)
class AttentionPoolOperatorConfig(TokenOperatorConfig):
    """How to pool.

    Attributes:
      num_queries: number of learned queries; one gives a vector, more a sequence.
      depth: 1 for the pooling head of big_vision, more for layers of the Perceiver resampler.
      out_features: width of the result; `None` is that of the tokens.
      hidden_features: width between the feed-forward layers; `None`: four times that of the result.
      num_times: with depth above 1 and tokens [times, s, d], the number of learned times; `None`:
        none.
      mask: field with a bool for each token, True to keep; `None` keeps all.

    Raises:
      ValueError: unless there are one input and one output field, with sizes that fit.
    """

    operation: str = field(default="attention_pool", kw_only=True)
    num_queries: int = field(default=1, kw_only=True)
    depth: int = field(default=1, kw_only=True)
    out_features: int | None = field(default=None, kw_only=True)
    hidden_features: int | None = field(default=None, kw_only=True)
    num_times: int | None = field(default=None, kw_only=True)
    mask: str | None = field(default=None, kw_only=True)

    def check_fields(self) -> None:
        """Raise unless there are as many fields as the operator takes."""
        check_count("input_fields", self.input_fields, [1])
        check_count("output_fields", self.output_fields, [1])

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("num_queries", self.num_queries)
        check_positive("depth", self.depth)
        check_field_name("mask", self.mask)
        for name, value in (
            ("out_features", self.out_features),
            ("hidden_features", self.hidden_features),
            ("num_times", self.num_times),
        ):
            if value is not None:
                check_positive(name, value)
        if self.num_times is not None and self.depth == 1:
            raise ValueError(f"num_times={self.num_times} is read with depth above 1 only, got 1")
        self.width_of_head(self.width)

    @property
    def width(self) -> int:
        """The width of queries and result."""
        tokens = self.features[self.input_fields[0]]
        return tokens if self.out_features is None else self.out_features


class AttentionPoolOperator(TokenOperator):
    """Pool the tokens `[s, d]` of a field to `[n, out_features]`, or `[out_features]` for n = 1.

    A record of which all tokens are masked gives exactly 0 with gradient 0; see
    `nn.AttentionPool`.
    """

    config: AttentionPoolOperatorConfig
    config_class = AttentionPoolOperatorConfig
    built_from = (
        "features",
        "num_heads",
        "head_dim",
        "num_queries",
        "depth",
        "out_features",
        "hidden_features",
        "num_times",
        "dropout",
    )

    def build(self, rngs: nnx.Rngs) -> None:
        """Make the module."""
        config = self.config
        self.pool = AttentionPool(
            config.features[config.input_fields[0]],
            num_queries=config.num_queries,
            depth=config.depth,
            num_heads=config.num_heads,
            head_dim=config.width_of_head(config.width),
            out_features=config.out_features,
            hidden_features=config.hidden_features,
            num_times=config.num_times,
            dropout=config.dropout,
            rngs=rngs,
        )

    def named_fields(self) -> Iterable[str | None]:
        """The mask."""
        return (self.config.mask,)

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """Pool one record; see `nn.AttentionPool`."""
        (tokens,) = self._extract_inputs(data)
        mask = optional_field(data, self.config.mask)
        pooled = self.pool(tokens, mask=mask, rng_key=random_params)
        return self._store_outputs(data, [pooled]), state, metadata
