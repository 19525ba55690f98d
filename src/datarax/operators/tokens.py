"""What operators on sequences of tokens have in common: heads, masks, dropout."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.fields import get_field, require_fields
from datarax.core.presence import row_presence
from datarax.functional.checks import check_mask
from datarax.operators.checks import (
    check_axes,
    check_features,
    check_field_name,
    check_number,
    check_positive,
)


@dataclass(frozen=True)
class TokenOperatorConfig(CrossModalOperatorConfig):
    """What every operator with attention can be told.

    Attributes:
      features: the width of each input field.
      num_heads: number of heads.
      head_dim: width of one head; `None` divides the width of the queries by the number of heads.
      dropout: probability in [0, 1) that an attention weight is dropped, drawn for each record; off
        under `op.eval()`. Above 0 it needs `stochastic=True` and a `stream_name`.

    Raises:
      ValueError: for a width that lacks, a number out of range, or `dropout` that does not fit
        `stochastic`.
    """

    features: dict[str, int] = field(kw_only=True, hash=False)
    num_heads: int = field(default=8, kw_only=True)
    head_dim: int | None = field(default=None, kw_only=True)
    dropout: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_fields()
        check_features(self.features, self.input_fields)
        check_positive("num_heads", self.num_heads)
        if self.head_dim is not None:
            check_positive("head_dim", self.head_dim)
        check_number("dropout", self.dropout, low=0, high=0.999)
        if (self.dropout > 0) != self.stochastic:
            raise ValueError(
                "dropout above 0 draws and needs stochastic=True with stream_name; without it "
                f"nothing is drawn: got dropout={self.dropout}, stochastic={self.stochastic}"
            )

    def check_fields(self) -> None:
        """Raise unless there are as many fields as the operator takes."""

    def width_of_head(self, width: int) -> int:
        """`head_dim`, or its default for queries of a width.

        Raises:
          ValueError: if the heads do not divide the width.
        """
        if self.head_dim is not None:
            return self.head_dim
        if width % self.num_heads:
            raise ValueError(
                f"num_heads {self.num_heads} does not divide the query's width {width}: "
                "give head_dim"
            )
        return width // self.num_heads


class TokenOperator(CrossModalOperator):
    """Base of operators with attention: their config has sizes, their parameters are drawn.

    Raises:
      ValueError: without a config of the operator's own, which has the sizes, or without rngs.
    """

    config: TokenOperatorConfig
    config_class: ClassVar[type[TokenOperatorConfig]] = TokenOperatorConfig

    def __init__(
        self,
        config: CrossModalOperatorConfig,
        *,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        if rngs is None:
            raise ValueError(f"{config.operation} draws its parameters: give rngs")
        self.build(rngs)

    def build(self, rngs: nnx.Rngs) -> None:
        """Make the parts of the operator from its config."""
        raise NotImplementedError(f"{type(self).__name__} must implement build")

    def named_fields(self) -> Iterable[str | None]:
        """The fields beside the inputs that the operator reads; `None` for one not given."""
        return ()

    def check_batch(self, batch: Batch) -> None:
        """Raise as `CrossModalOperator.check_batch`, and for fields that the config names.

        Raises:
          KeyError: if a field that is named is missing.
          TypeError: for an input field that is not floating point.
          ValueError: for an input field of another width.
        """
        super().check_batch(batch)
        require_fields(batch.data, [name for name in self.named_fields() if name is not None])
        for name in self.config.input_fields:
            axes: list[int | str] = ["n", "...", self.config.features[name]]
            check_axes(name, batch[name], axes, why="features")

    def generate_random_params(self, rng: Array, data_shapes: Any) -> Array | None:
        """A key for the dropout of each record [B]."""
        if self.config.dropout == 0:
            return None
        sizes = jax.tree.leaves(data_shapes, is_leaf=lambda x: isinstance(x, tuple))
        return jax.random.split(rng, sizes[0][0])


def optional_field(data: Any, name: str | None) -> Any:
    """The value of a field, or `None` without a name."""
    return None if name is None else get_field(data, name)


def present_tokens(
    data: Any, metadata: dict[str, Any] | None, fields: Iterable[str], masks: Mapping[str, str]
) -> list[Array]:
    """Which tokens of each field are there: none of an absent field, else those of its mask.

    Args:
      data, metadata: the record.
      fields: the fields of tokens [..., d].
      masks: the field with the mask of each, a bool for each token; a field without has them all.

    Raises:
      TypeError: if a mask is not boolean.
      ValueError: if its shape is not that of the tokens.
    """
    names = list(fields)
    there = []
    for name, present in zip(names, row_presence(metadata, names), strict=True):
        mask = optional_field(data, masks.get(name))
        shape = jnp.shape(get_field(data, name))[:-1]
        if mask is not None:
            check_mask(mask, shape=shape, name=f"field {masks[name]!r}")
        there.append((jnp.ones(shape, bool) if mask is None else mask) & present)
    return there


def check_masks(masks: Any, fields: Iterable[str]) -> None:
    """Raise unless `masks` maps input fields to names of fields.

    Raises:
      ValueError: naming what is no input field, or with the mapping.
    """
    if not isinstance(masks, Mapping):
        raise ValueError(f"masks must map input fields to the fields of their masks, got {masks!r}")
    if unknown := sorted(set(masks) - set(fields)):
        raise ValueError(f"masks name {unknown}, which are no input fields: {sorted(fields)}")
    for name, mask in masks.items():
        check_field_name(f"masks[{name!r}]", mask)
