"""Operators on token ids `[t]` with their mask `[t]` (True where there is a token).

The ids are integers of any kind: of a vocabulary, or hashes of words and n-grams.
"""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig
from datarax.functional.text import is_one_of, keep_tokens, mask_tokens, surviving_tokens
from datarax.operators.checks import check_count, check_integer, check_number, check_positive
from datarax.operators.field import check_stochastic, draw_rows


@dataclass(frozen=True)
class TokenDropoutConfig(CrossModalOperatorConfig):
    """Which tokens to drop: input fields are tokens and their mask, output fields the same of both.

    Attributes:
      rate: probability that a token is dropped.
      pad_id: what the slots behind the tokens hold afterwards.
      special_ids: tokens that are never dropped.

    Raises:
      ValueError: unless it is stochastic, with two fields in, two out, and values in range.
    """

    operation: str = field(default="token_dropout", kw_only=True)
    rate: float = field(kw_only=True)
    pad_id: int = field(default=0, kw_only=True)
    special_ids: tuple[int, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stochastic(self)
        check_count("input_fields", self.input_fields, [2])
        check_count("output_fields", self.output_fields, [2])
        check_number("rate", self.rate, low=0, high=1)
        check_integer("pad_id", self.pad_id, low=0)
        _check_ids("special_ids", self.special_ids)


@dataclass(frozen=True)
class TokenMaskingConfig(CrossModalOperatorConfig):
    """Masked language modelling: from tokens and their mask to tokens with some hidden, and labels.

    Attributes:
      mask_id: written for a hidden token.
      vocabulary_size: ids are in [0, vocabulary_size).
      rate: probability that a token is chosen.
      mask_share, random_share: of the tokens chosen, the share that becomes `mask_id` and the share
        that becomes another id at random; the rest stays. BERT's are the defaults.
      special_ids: tokens that are never chosen, nor written at random.
      ignore_index: the label of a token that was not chosen.

    Raises:
      ValueError: unless it is stochastic, with two fields in, two out, and values in range.
    """

    operation: str = field(default="token_masking", kw_only=True)
    mask_id: int = field(kw_only=True)
    vocabulary_size: int = field(kw_only=True)
    rate: float = field(default=0.15, kw_only=True)
    mask_share: float = field(default=0.8, kw_only=True)
    random_share: float = field(default=0.1, kw_only=True)
    special_ids: tuple[int, ...] = field(default=(), kw_only=True)
    ignore_index: int = field(default=-100, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stochastic(self)
        check_count("input_fields", self.input_fields, [2])
        check_count("output_fields", self.output_fields, [2])
        check_positive("vocabulary_size", self.vocabulary_size)
        check_integer("mask_id", self.mask_id, low=0)
        check_number("rate", self.rate, low=0, high=1)
        check_number("mask_share", self.mask_share, low=0, high=1)
        check_number("random_share", self.random_share, low=0, high=1)
        if self.mask_share + self.random_share > 1 + 1e-9:
            raise ValueError(
                "mask_share and random_share must be at most 1 together, "
                f"got {self.mask_share} and {self.random_share}"
            )
        _check_ids("special_ids", self.special_ids)
        check_integer("ignore_index", self.ignore_index, low=-(2**31))


class TokenDropout(CrossModalOperator):
    """Drop tokens at random and close the gaps (`functional.keep_tokens`); off in `op.eval()`.

    The length stays, the mask says how many tokens are left: at least one of those there were.
    """

    config: TokenDropoutConfig
    config_class = TokenDropoutConfig

    def generate_random_params(self, rng: Array, data_shapes: Any) -> Array:
        """Uniform numbers `[B, t]`; below `rate` a token is dropped."""
        return draw_rows(jax.random.uniform, rng, data_shapes, self.config.input_fields[0])

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """Drop tokens of one record."""
        tokens, mask = self._extract_inputs(data)
        if random_params is not None:
            keep = surviving_tokens(random_params, mask, rate=self.config.rate)
            keep = keep | (mask & is_one_of(tokens, self.config.special_ids))
            tokens, mask = keep_tokens(tokens, keep, pad_id=self.config.pad_id)
        return self._store_outputs(data, [tokens, mask]), state, metadata


class TokenMasking(CrossModalOperator):
    """Hide tokens at random and write what they were as labels (`functional.mask_tokens`).

    In `op.eval()` nothing is hidden and every label is `ignore_index`. To evaluate masked language
    modelling leave the operator in training mode: by `record_index` it draws the same each time.
    """

    config: TokenMaskingConfig
    config_class = TokenMaskingConfig

    def generate_random_params(self, rng: Array, data_shapes: Any) -> Array:
        """Uniform numbers `[B, t, 3]`: chosen or not, what it becomes, which id."""

        def numbers(key: Array, shape: tuple[int, ...]) -> Array:
            return jax.random.uniform(key, (*shape, 3))

        return draw_rows(numbers, rng, data_shapes, self.config.input_fields[0])

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """Hide tokens of one record."""
        config = self.config
        tokens, mask = self._extract_inputs(data)
        off = random_params is None
        hidden, labels = mask_tokens(
            tokens,
            mask & ~is_one_of(tokens, config.special_ids),
            jnp.ones((*tokens.shape, 3)) if off else random_params,
            mask_id=config.mask_id,
            vocabulary_size=config.vocabulary_size,
            special_ids=config.special_ids,
            rate=0.0 if off else config.rate,
            mask_share=config.mask_share,
            random_share=config.random_share,
            ignore_index=config.ignore_index,
        )
        return self._store_outputs(data, [hidden, labels]), state, metadata


def _check_ids(name: str, ids: Any) -> None:
    if not isinstance(ids, tuple):
        raise ValueError(f"{name} must be a tuple of ids, got {ids!r}")
    for token in ids:
        check_integer(name, token, low=0)
