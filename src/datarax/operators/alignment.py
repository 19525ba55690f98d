"""Alignment: how far two modalities of a record, or of a batch, are apart."""

from dataclasses import dataclass, field
from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig
from datarax.core.element_batch import Batch
from datarax.functional.alignment import (
    alignment_loss,
    cosine_alignment,
    modality_gap,
    squared_error_alignment,
    uniformity,
)
from datarax.functional.masking import safe_l2_normalize
from datarax.operators.checks import check_choice, check_count, check_number

AlignmentMethod = Literal["cosine", "squared_error", "alignment_uniformity", "modality_gap"]


@dataclass(frozen=True)
class AlignmentOperatorConfig(CrossModalOperatorConfig):
    """Which distance.

    Attributes:
      method: `"cosine"` is 1 - cosine, `"squared_error"` the mean squared difference;
        `"alignment_uniformity"` is Wang and Isola's sum, `"modality_gap"` the distance of the two
        centroids, the same for every row.
      normalize: make unit vectors first, which `"cosine"` is indifferent to; `None` does for the
        two methods that relate rows, which are defined on the sphere.
      power: exponent of the distance in the alignment term; 2 is the paper's. This and the next two
        are read by `"alignment_uniformity"` only.
      t: factor in the exponent of the uniformity term; 2 is the paper's.
      uniformity_weight: weight of the mean uniformity of both fields; 1 is the paper's.

    Raises:
      ValueError: unless there are two input fields and one output field, or for an unknown method
        or a number out of range.
    """

    operation: str = field(default="alignment", kw_only=True)
    method: AlignmentMethod = field(default="cosine", kw_only=True)
    normalize: bool | None = field(default=None, kw_only=True)
    power: float = field(default=2.0, kw_only=True)
    t: float = field(default=2.0, kw_only=True)
    uniformity_weight: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("input_fields", self.input_fields, [2])
        check_count("output_fields", self.output_fields, [1])
        check_choice("method", self.method, AlignmentMethod)
        check_number("power", self.power, low=0, high=100, open_low=True)
        check_number("t", self.t, low=0, high=100, open_low=True)
        check_number("uniformity_weight", self.uniformity_weight, low=0, high=1e6)


class AlignmentOperator(CrossModalOperator):
    """Distance of two fields `[d]`, for each record `[]`.

    With a plain `CrossModalOperatorConfig` it is 1 - cosine. A record needs both fields.
    """

    def __init__(
        self,
        config: CrossModalOperatorConfig,
        *,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        check_count("input_fields", config.input_fields, [2])
        check_count("output_fields", config.output_fields, [1])

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """The distance within one record.

        Raises:
          ValueError: for a method that relates rows.
        """
        config = self.config
        a, b = self._extract_inputs(data)
        if not isinstance(config, AlignmentOperatorConfig) or config.method == "cosine":
            loss = cosine_alignment(a, b)
        elif config.method == "squared_error":
            loss = squared_error_alignment(*_vectors(config, a, b))
        else:
            raise ValueError(f"{config.method} relates rows: call the operator on a batch")
        return self._store_outputs(data, [loss]), state, metadata

    def apply_batch(self, batch: Batch, stats: dict[str, Any] | None = None) -> Batch:
        """The distances of a batch; see `functional.alignment`."""
        config = self.config
        if not isinstance(config, AlignmentOperatorConfig):
            return super().apply_batch(batch, stats)
        if config.method in ("cosine", "squared_error"):
            return super().apply_batch(batch, stats)
        self.check_batch(batch)
        a, b = _vectors(config, *self._extract_inputs(batch.data))
        where = batch.where(*config.input_fields)
        if config.method == "modality_gap":
            loss = jnp.broadcast_to(modality_gap(a, b, where=where), (batch.batch_size,))
        else:
            spread = (
                uniformity(a, t=config.t, where=where) + uniformity(b, t=config.t, where=where)
            ) / 2
            loss = alignment_loss(a, b, power=config.power)
            loss = loss + jnp.broadcast_to(config.uniformity_weight * spread, loss.shape)
        return batch.replace(data=self._store_outputs(batch.data, [loss]))


def _vectors(config: AlignmentOperatorConfig, a: Array, b: Array) -> tuple[Array, Array]:
    normalize = config.normalize
    if normalize is None:
        normalize = config.method in ("alignment_uniformity", "modality_gap")
    return (safe_l2_normalize(a), safe_l2_normalize(b)) if normalize else (a, b)
