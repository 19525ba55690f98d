"""Operators across modalities: they read several fields of a record and write new ones."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from flax import nnx

from datarax.core.config import OperatorConfig, check_field_list, check_flag
from datarax.core.element_batch import Batch
from datarax.core.fields import get_field, require_fields, set_field
from datarax.core.operator import OperatorModule

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CrossModalOperatorConfig(OperatorConfig):
    """What every cross-modal operator can be told.

    Attributes:
      input_fields: the fields to read; a nested one as a path, `"audio.embedding"`.
      output_fields: the fields to write, each once; one that exists is overwritten.
      operation: the kind of operation, in words: `"fusion"`, `"cross_attention"`,
        `"contrastive"`, `"alignment"`, or any other.
      validate_alignment: check that the input fields are arrays with one batch size.

    Raises:
      ValueError: if a field list is not a non-empty list of non-empty strings, an output is
        repeated, `operation` is no string, or a rule of `OperatorConfig` is broken.

    Example:
      >>> config = CrossModalOperatorConfig(input_fields=["image", "text"], output_fields=["joint"])
      >>> config.operation
      'fusion'
    """

    input_fields: list[str] = field(kw_only=True, hash=False)
    output_fields: list[str] = field(kw_only=True, hash=False)
    operation: str = field(default="fusion", kw_only=True)
    validate_alignment: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("validate_alignment", self.validate_alignment)
        check_field_list("input_fields", self.input_fields, unique=False)
        check_field_list("output_fields", self.output_fields, unique=True)
        if not isinstance(self.operation, str):
            raise ValueError(f"operation must be a string, got {self.operation!r}")


class CrossModalOperator(OperatorModule):
    """Base of operators that read `config.input_fields` and write `config.output_fields`.

    A subclass implements `apply` for one record with `_extract_inputs` and `_store_outputs`, or
    overrides `apply_batch` to relate rows. Parameters are `nnx.Param` and train with any model
    that holds the operator. By default a row without one of the inputs is skipped.

    Args:
      config: the configuration.
      rngs: random number generators; required if `config.stochastic`.
      name: a name for messages and reports.

    Raises:
      ValueError: if stochastic without `rngs`.
    """

    config: CrossModalOperatorConfig

    def __init__(
        self,
        config: CrossModalOperatorConfig,
        *,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)

    @property
    def required_fields(self) -> tuple[str, ...]:
        """The fields without which a row is skipped: all inputs."""
        return tuple(self.config.input_fields)

    @property
    def read_fields(self) -> tuple[str, ...]:
        """The fields that the operator reads: all inputs."""
        return tuple(self.config.input_fields)

    def _extract_inputs(self, data: Any) -> list[Any]:
        """The values of the input fields, in order.

        Raises:
          KeyError: naming the missing fields and those that there are.
        """
        require_fields(data, self.config.input_fields)
        return [get_field(data, name) for name in self.config.input_fields]

    def _store_outputs(self, data: Any, outputs: Sequence[Any]) -> Any:
        """A copy of `data` with the output fields written, in order.

        Raises:
          ValueError: if there are not as many outputs as output fields.
        """
        names = self.config.output_fields
        if len(outputs) != len(names):
            raise ValueError(
                f"{type(self).__name__} has {len(names)} output_fields {names}, "
                f"got {len(outputs)} outputs"
            )
        for name, value in zip(names, outputs, strict=True):
            data = set_field(data, name, value)
        return data

    def check_batch(self, batch: Batch) -> None:
        """Raise if the input fields are not all there, or not aligned.

        Raises:
          KeyError: naming the missing fields and those that the batch has.
          ValueError: with `validate_alignment`, naming each input field with its shape, if one is
            no array or their batch sizes differ.
        """
        require_fields(batch.data, self.config.input_fields)
        if self.config.validate_alignment:
            check_alignment({name: batch[name] for name in self.config.input_fields})


def check_alignment(fields: dict[str, Any]) -> None:
    """Raise unless all values are arrays that agree on the batch dimension, axis 0.

    Raises:
      ValueError: naming each field with its shape.
    """
    arrays = all(isinstance(x, jax.Array | np.ndarray) and x.ndim > 0 for x in fields.values())
    if arrays and len({x.shape[0] for x in fields.values()}) == 1:
        return
    shapes = ", ".join(
        f"{name!r} {list(x.shape)}"
        if isinstance(x, jax.Array | np.ndarray)
        else f"{name!r} ({type(x).__name__}, no array)"
        for name, x in fields.items()
    )
    raise ValueError(f"input fields must be arrays with one batch size on axis 0, got {shapes}")
