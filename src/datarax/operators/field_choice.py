"""Augmentation that is real data: another view of the same record in place of the first."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig
from datarax.core.fields import get_field
from datarax.core.presence import row_presence
from datarax.operators.checks import check_number
from datarax.operators.field import check_stochastic


@dataclass(frozen=True)
class FieldChoiceConfig(CrossModalOperatorConfig):
    """One output field, and as inputs that field first and then its alternatives.

    Attributes:
      rate: the chance that a record's field is replaced by an alternative, in [0, 1].

    Raises:
      ValueError: unless it is stochastic, `rate` is in range, and the fields are such a list.
    """

    operation: str = field(default="field_choice", kw_only=True)
    rate: float = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stochastic(self)
        check_number("rate", self.rate, low=0, high=1)
        if len(self.input_fields) < 2 or self.output_fields != self.input_fields[:1]:
            raise ValueError(
                "expected output_fields to be the first of at least 2 input_fields, "
                f"got {self.output_fields} and {self.input_fields}"
            )


class FieldChoice(CrossModalOperator):
    """Replaces a field, with probability `rate`, by one of its alternatives.

    Each alternative is as likely as the others; one that the record lacks leaves it as it is. All
    have one shape and dtype. Off in `op.eval()`.
    """

    config: FieldChoiceConfig
    config_class = FieldChoiceConfig

    @property
    def required_fields(self) -> tuple[str, ...]:
        """The field that may be replaced."""
        return tuple(self.config.input_fields[:1])

    def generate_random_params(self, rng: Array, data_shapes: Any) -> Array:
        """A number in [0, 1) for each record: below `rate` it says which alternative."""
        return jax.random.uniform(rng, (get_field(data_shapes, self.config.input_fields[0])[0],))

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """One record; without random parameters (`eval`) the field stays as it is.

        Raises:
          ValueError: if the fields differ in shape or dtype.
        """
        if random_params is None:
            return data, state, metadata
        names = self.config.input_fields
        values = self._extract_inputs(data)
        if len({(x.shape, x.dtype) for x in values}) > 1:
            kinds = [f"{n!r} {x.dtype}{list(x.shape)}" for n, x in zip(names, values, strict=True)]
            raise ValueError(f"alternatives must have one shape and dtype, got {', '.join(kinds)}")
        share = random_params / max(self.config.rate, 1e-12) * (len(names) - 1)
        chosen = jnp.floor(share).astype(jnp.int32) + 1
        value, *others = values
        presence = row_presence(metadata, names[1:])
        for place, (other, there) in enumerate(zip(others, presence, strict=True), 1):
            value = jnp.where((chosen == place) & there, other, value)
        return self._store_outputs(data, [value]), state, metadata
