"""Operators on presence itself."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig
from datarax.core.presence import row_presence, with_presence
from datarax.operators.checks import check_number


@dataclass(frozen=True)
class ModalityDropoutConfig(CrossModalOperatorConfig):
    """Which modalities to drop, and how often.

    Attributes:
      rate: probability in [0, 1] that a present modality is dropped.

    Raises:
      ValueError: unless it is stochastic, its output fields are its input fields, and `rate` is in
        range.
    """

    operation: str = field(default="modality_dropout", kw_only=True)
    rate: float = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("rate", self.rate, low=0, high=1)
        if not self.stochastic:
            raise ValueError("modality dropout draws: give stochastic=True and stream_name")
        if self.output_fields != self.input_fields:
            raise ValueError(
                f"modality dropout writes the fields it reads: output_fields must be "
                f"{self.input_fields}, got {self.output_fields}"
            )


class ModalityDropout(CrossModalOperator):
    """Mark modalities of a record as absent at random, never the last one that it has.

    Each modality that is present is dropped with probability `rate`. Where that would drop all, one
    of them, each as likely, is kept. The fields' values are handed through untouched, so nothing is
    copied; operators after this one do not see what is marked absent. `op.eval()` turns it off.
    """

    config: ModalityDropoutConfig

    @property
    def required_fields(self) -> tuple[str, ...]:
        """None: it is about absence."""
        return ()

    def generate_random_params(self, rng: Array, data_shapes: Any) -> dict[str, Array]:
        """Uniform numbers `[B, M]`: to drop by, and to choose by what to keep."""
        sizes = jax.tree.leaves(data_shapes, is_leaf=lambda x: isinstance(x, tuple))
        shape = (sizes[0][0], len(self.config.input_fields))
        drop_key, keep_key = jax.random.split(rng)
        return {
            "drop": jax.random.uniform(drop_key, shape),
            "keep": jax.random.uniform(keep_key, shape),
        }

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """Choose for one record."""
        if random_params is None:
            return data, state, metadata
        fields = self.config.input_fields
        present = jnp.stack(row_presence(metadata, fields))
        kept = present & (random_params["drop"] >= self.config.rate)
        chosen = jnp.argmax(jnp.where(present, random_params["keep"], -1.0))
        last = present & (jnp.arange(len(fields)) == chosen)
        kept = jnp.where(jnp.any(kept), kept, last)
        return data, state, with_presence(metadata, fields, list(kept))
