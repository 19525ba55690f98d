"""Matching: do the two modalities of a record belong together, told apart from hard negatives."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.fields import require_fields
from datarax.functional.contrastive import sample_hard_negatives
from datarax.functional.contrastive.matching import matching_loss
from datarax.functional.masking import masked_mean
from datarax.functional.similarity import pairwise_cosine_similarity
from datarax.nn.matching import MatchingFusion, MatchingHead
from datarax.operators.checks import (
    check_axes,
    check_choice,
    check_count,
    check_features,
    check_field_name,
    check_number,
    check_positive,
)


@dataclass(frozen=True)
class MatchingOperatorConfig(CrossModalOperatorConfig):
    """How pairs are fused, and where their mismatches come from.

    Stochastic, a negative is drawn for each record and each side with the probability
    softmax(`sampling_scale` * cosine) (ALBEF); otherwise, and after `op.eval()`, the hardest is
    taken, the first of equals. Training on the hardest alone is prone to false negatives: give
    `ids_field` or `margin`.

    Attributes:
      features: the width of each input field.
      fusion: `"all"` is [a; b; |a - b|; a * b], or `"concat"`, `"product"`, `"difference"` of
        these; all but `"concat"` need equal widths.
      hidden_features: width of the head's hidden layer; `None` is a linear head.
      similarity_fields: for each input field the field `[d]` by whose cosine negatives are found,
        such as the embeddings that a contrastive operator writes; `None`: the inputs themselves, of
        equal width.
      sampling_scale: the inverse temperature of the draw; 1/0.07 is ALBEF's at the start.
      ids_field: field of integers `[]`; rows that share one are no negatives of each other, and a
        row that lacks it is left out.
      margin: leaves out negatives whose cosine is above that of the record's own pair less this
        (GISTEmbed), probably positives that nobody marked; `None` leaves none out.

    Raises:
      ValueError: unless there are two different input fields, for an unknown choice, widths that do
        not fit, or a number out of range.
    """

    operation: str = field(default="matching", kw_only=True)
    features: dict[str, int] = field(kw_only=True, hash=False)
    fusion: MatchingFusion = field(default="all", kw_only=True)
    hidden_features: int | None = field(default=None, kw_only=True)
    similarity_fields: dict[str, str] | None = field(default=None, kw_only=True, hash=False)
    sampling_scale: float = field(default=1 / 0.07, kw_only=True)
    ids_field: str | None = field(default=None, kw_only=True)
    margin: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("input_fields", self.input_fields, [2])
        check_count("output_fields", self.output_fields, [1, 2])
        check_features(self.features, self.input_fields)
        check_choice("fusion", self.fusion, MatchingFusion)
        differ = len(set(self.features.values())) > 1
        if differ and self.fusion != "concat":
            raise ValueError(f"fusion {self.fusion!r} needs equal widths, got {self.features}")
        if self.similarity_fields is None:
            if differ:
                raise ValueError(
                    f"fields of different widths {self.features} need similarity_fields to compare"
                )
        elif not isinstance(self.similarity_fields, dict) or set(self.similarity_fields) != set(
            self.input_fields
        ):
            raise ValueError(
                f"similarity_fields must map each of {self.input_fields} to a field, "
                f"got {self.similarity_fields!r}"
            )
        for name, other in (self.similarity_fields or {}).items():
            check_field_name(f"similarity_fields[{name!r}]", other)
        check_field_name("ids_field", self.ids_field)
        if self.hidden_features is not None:
            check_positive("hidden_features", self.hidden_features)
        check_number("sampling_scale", self.sampling_scale, low=0, high=1e6)
        if self.margin is not None:
            check_number("margin", self.margin, low=-2, high=2)
        if not math.isclose(self.sampling_scale, 1 / 0.07) and not self.stochastic:
            raise ValueError(
                f"sampling_scale={self.sampling_scale} is read where negatives are drawn: give "
                "stochastic=True and stream_name"
            )


class MatchingOperator(CrossModalOperator):
    """Binary cross-entropy of matching pairs against hard negatives (image-text matching, ITM).

    A record `i` is scored thrice: its own pair, its first modality with a negative of the second,
    and a negative of the first with its second; see `nn.MatchingHead` and
    `functional.matching_loss`. The first output field is the mean of its losses `[]`, a second one
    the log-odds of its own pair `[]`. A record needs both fields; without a negative its own pair
    is all that is scored. Which negative a record gets depends on its batch, so there is one key a
    batch. `batch_state` gets the `accuracy` over what is scored under the name of the loss.

    Raises:
      ValueError: without rngs, which draw the parameters.

    Reference: Li et al., 2021, arXiv:2107.07651, section 3.2.
    """

    config: MatchingOperatorConfig
    config_class = MatchingOperatorConfig
    built_from = ("features", "fusion", "hidden_features")

    def __init__(
        self,
        config: MatchingOperatorConfig,
        *,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        if rngs is None:
            raise ValueError("a matching head draws its parameters: give rngs")
        self.head = MatchingHead(
            [config.features[name] for name in config.input_fields],
            fusion=config.fusion,
            hidden_features=config.hidden_features,
            rngs=rngs,
        )

    @property
    def required_fields(self) -> tuple[str, ...]:
        """The inputs, what negatives are found by, and the ids."""
        others = [*(self.config.similarity_fields or {}).values(), self.config.ids_field]
        return (*self.config.input_fields, *(name for name in others if name is not None))

    def check_batch(self, batch: Batch) -> None:
        """Raise as `CrossModalOperator.check_batch`, and for fields that the config names.

        Raises:
          KeyError: for a field of ids or similarity that the batch lacks.
          TypeError: for an input field that is not floating point.
          ValueError: for an input field that is not `[width]` in a record.
        """
        super().check_batch(batch)
        require_fields(batch.data, self.required_fields)
        for name in self.config.input_fields:
            check_axes(name, batch[name], ["n", self.config.features[name]], why="features")

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """Not of one record.

        Raises:
          ValueError: always.
        """
        raise ValueError("matching relates rows: call the operator on a batch")

    def apply_batch(self, batch: Batch, stats: dict[str, Any] | None = None) -> Batch:
        """The losses of a batch; see `functional.matching_loss`."""
        self.check_batch(batch)
        rows = batch.where(*self.required_fields)
        rows = jnp.ones(batch.batch_size, bool) if rows is None else jnp.asarray(rows)
        a, b = self._extract_inputs(batch.data)
        (of_b, has_b), (of_a, has_a) = self._negatives(batch, rows)
        logits = self.head(jnp.concatenate([a, a, a[of_a]]), jnp.concatenate([b, b[of_b], b]))
        logits = logits.reshape(3, -1).T
        targets = jnp.asarray([True, False, False])
        where = jnp.stack([rows, rows & has_b, rows & has_a], axis=1)
        outputs = [matching_loss(logits, targets=targets, where=where), logits[:, 0]]
        right = ((logits > 0) == targets[None, :]).astype(jnp.float32)
        accuracy = masked_mean(right.reshape(-1), where=where.reshape(-1))
        batch_state = batch.batch_state
        if batch_state is None or isinstance(batch_state, Mapping):
            own = {self.config.output_fields[0]: {"accuracy": accuracy}}
            batch_state = {**(batch_state or {}), **own}
        data = self._store_outputs(batch.data, outputs[: len(self.config.output_fields)])
        return batch.replace(data=data, batch_state=batch_state)

    def _negatives(self, batch: Batch, rows: Array) -> list[tuple[Array, Array]]:
        """Of the second field for each row of the first, and the other way; and which have one."""
        config = self.config
        named = config.similarity_fields or {name: name for name in config.input_fields}
        first, second = (batch[named[name]] for name in config.input_fields)
        drawn = config.stochastic and not self.deterministic
        keys = jax.random.split(self.batch_key(batch)) if drawn else (None, None)
        scale = config.sampling_scale if drawn else 1.0
        similarity = scale * pairwise_cosine_similarity(first, second)
        options = {
            "where": rows[:, None] & rows[None, :],
            "ids": None if config.ids_field is None else jnp.asarray(batch[config.ids_field]),
            "margin": None if config.margin is None else scale * config.margin,
        }
        return [
            sample_hard_negatives(k, s, **options)
            for k, s in zip(keys, (similarity, similarity.T), strict=True)
        ]
