"""Augmentation that is real data: the same character in another face."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig


@dataclass(frozen=True)
class FaceChoiceConfig(CrossModalOperatorConfig):
    """One output field, and as inputs that field first and then its alternatives.

    Attributes:
      rate: the chance that a record's field is replaced by an alternative, in [0, 1].

    Raises:
      ValueError: if `rate` is out of range, or the fields are not such a list.
    """

    rate: float = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate must be in [0, 1], got {self.rate}")
        if len(self.input_fields) < 2 or self.output_fields != self.input_fields[:1]:
            raise ValueError(
                "expected output_fields to be the first of at least 2 input_fields, "
                f"got {self.output_fields} and {self.input_fields}"
            )


class FaceChoice(CrossModalOperator):
    """Replaces a field, with probability `rate`, by one of its alternatives.

    Each alternative is as likely as the others; one that the record lacks leaves it as it is.
    """

    config: FaceChoiceConfig

    @property
    def required_fields(self) -> tuple[str, ...]:
        """The field that may be replaced."""
        return tuple(self.config.input_fields[:1])

    def generate_random_params(self, rng: Array, data_shapes: Any) -> Array:
        """A number in [0, 1) for each record: below `rate` it says which alternative."""
        return jax.random.uniform(rng, (data_shapes[self.config.input_fields[0]][0],))

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """One record; without random parameters (`eval`) the field stays as it is."""
        if random_params is None:
            return data, state, metadata
        names = self.config.input_fields
        presence = (metadata or {}).get("presence", {})
        share = random_params / max(self.config.rate, 1e-12) * (len(names) - 1)
        chosen = jnp.floor(share).astype(jnp.int32) + 1
        value = data[names[0]]
        for place, name in enumerate(names[1:], 1):
            here = (chosen == place) & presence.get(name, True)
            value = jnp.where(here, data[name], value)
        return self._store_outputs(data, [value]), state, metadata
