"""Operators on presence itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig
from datarax.core.presence import row_presence, with_presence
from datarax.operators.checks import check_number, check_positive


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
    config_class = ModalityDropoutConfig

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


@dataclass(frozen=True)
class MissingModalityEmbeddingConfig(CrossModalOperatorConfig):
    """Which fields get a learned value where they are absent.

    Attributes:
      features: the shape of each input field in a record: a width, or a list of sizes.
      mark_present: mark what was filled as present, so that the operators after this one read it;
        without it the value is there, but operators that look at presence leave it out.

    Raises:
      ValueError: unless each input field has a shape of positive sizes, and the output fields are
        the input fields.
    """

    operation: str = field(default="missing_modality", kw_only=True)
    features: dict[str, Any] = field(kw_only=True, hash=False)
    mark_present: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.features, Mapping) or set(self.features) != set(self.input_fields):
            raise ValueError(
                f"features must give the shape of each of {sorted(set(self.input_fields))}, "
                f"got {self.features!r}"
            )
        for name in self.features:
            for size in self.shape(name):
                check_positive(f"features[{name!r}]", size)
        if not isinstance(self.mark_present, bool):
            raise ValueError(f"mark_present must be a bool, got {self.mark_present!r}")
        if self.output_fields != self.input_fields:
            raise ValueError(
                f"it fills the fields that it reads: output_fields must be {self.input_fields}, "
                f"got {self.output_fields}"
            )

    def shape(self, name: str) -> tuple[Any, ...]:
        """The shape of a field in one record."""
        sizes = self.features[name]
        return tuple(sizes) if isinstance(sizes, list | tuple) else (sizes,)


class MissingModalityEmbedding(CrossModalOperator):
    """Replace a field that a record lacks by a learned array of its shape.

    Every field of a valid record is filled, also where the record has none of them. What lay in an
    absent field reaches neither value nor gradient; the gradient of the learned array comes from
    the records that lack the field. Rows that are not valid stay 0 and absent.

    Parameters: `embeddings[i]`, in the order and shapes of the input fields, float32, initially
    normal with standard deviation 0.02.

    Raises:
      ValueError: without a `MissingModalityEmbeddingConfig`, which has the shapes, or without rngs.
    """

    config: MissingModalityEmbeddingConfig
    config_class = MissingModalityEmbeddingConfig
    built_from = ("features",)

    def __init__(
        self,
        config: MissingModalityEmbeddingConfig,
        *,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        if rngs is None:
            raise ValueError("the embeddings of missing modalities are drawn: give rngs")
        draw = nnx.initializers.normal(0.02)
        shapes = [config.shape(name) for name in config.input_fields]
        self.embeddings = nnx.List(
            [nnx.Param(draw(rngs.params(), shape, jnp.float32)) for shape in shapes]
        )

    @property
    def required_fields(self) -> tuple[str, ...]:
        """None: it is about absence."""
        return ()

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """Fill one record."""
        fields = self.config.input_fields
        present = row_presence(metadata, fields)
        filled = []
        for name, x, there, learned in zip(
            fields, self._extract_inputs(data), present, self.embeddings, strict=True
        ):
            _check_field(name, x, self.config.shape(name))
            filled.append(jnp.where(there, x, learned[...].astype(x.dtype)))
        marks = [jnp.ones((), bool) if self.config.mark_present else there for there in present]
        # New arrays: presence handed through would count as that of a field written anew.
        marks = [jnp.array(mark, copy=True) for mark in marks]
        return self._store_outputs(data, filled), state, with_presence(metadata, fields, marks)


def _check_field(name: str, x: Any, shape: tuple[int, ...]) -> None:
    if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        raise TypeError(f"field {name!r} must be floating point to be filled, got {x.dtype}")
    if jnp.shape(x) != shape:
        raise ValueError(
            f"field {name!r} must have the shape {list(shape)} that features gives, got "
            f"{list(x.shape)}"
        )
