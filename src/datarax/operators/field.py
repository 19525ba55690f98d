"""What operators share that read one field of a record, and those that draw for each record."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import Array

from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig
from datarax.core.fields import get_field
from datarax.operators.checks import check_count


@dataclass(frozen=True)
class FieldConfig(CrossModalOperatorConfig):
    """One field in, one out.

    Raises:
      ValueError: unless there is one of each.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("input_fields", self.input_fields, [1])
        check_count("output_fields", self.output_fields, [1])


class FieldOperator(CrossModalOperator):
    """Base of operators with one field in and one out; a subclass implements `transform`."""

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """Transform the field of one record."""
        (x,) = self._extract_inputs(data)
        return self._store_outputs(data, [self.transform(x, random_params, stats)]), state, metadata

    def transform(self, x: Array, random_params: Any, stats: dict[str, Any] | None) -> Array:
        """The new value of the field."""
        raise NotImplementedError(f"{type(self).__name__} must implement transform")


def check_stochastic(config: CrossModalOperatorConfig) -> None:
    """Raise unless the config of an operator that draws is stochastic.

    Raises:
      ValueError: saying what to give.
    """
    if not config.stochastic:
        raise ValueError(f"{config.operation} draws: give stochastic=True and stream_name")


def draw_rows(
    draw: Callable[[Array, tuple[int, ...]], Any], rng: Array, data_shapes: Any, field: str
) -> Any:
    """The random parameters of a batch from those of a record, the batch on axis 0.

    Args:
      draw: makes a record's parameters from a key and the shape of its field.
      rng: the key of the batch.
      data_shapes: the tree of shapes that `generate_random_params` gets.
      field: the name of the field.
    """
    rows, *shape = get_field(data_shapes, field)
    return jax.vmap(lambda key: draw(key, tuple(shape)))(jax.random.split(rng, rows))
