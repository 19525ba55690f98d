"""Map the vectors of one modality onto those of another by an orthogonal matrix."""

from dataclasses import dataclass, field
from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from datarax.core.config import check_flag
from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.fields import get_field, require_fields
from datarax.functional.alignment.procrustes import procrustes_transform
from datarax.nn.procrustes import ProcrustesMap
from datarax.operators.checks import check_choice, check_count, check_positive

ProcrustesFit = Literal["batch", "stored"]


@dataclass(frozen=True)
class ProcrustesOperatorConfig(CrossModalOperatorConfig):
    """Where the map comes from.

    Attributes:
      features: the width of the vectors.
      fit: `"batch"` fits the map on the rows of each batch that have both fields, `"stored"`
        applies the one that `ProcrustesOperator.fit` kept.
      reflection: allow determinant -1.
      center: subtract the mean of each field first, and add that of the second after.

    Raises:
      ValueError: unless there are two input fields and one output field, or for an unknown choice.
    """

    operation: str = field(default="procrustes", kw_only=True)
    features: int = field(kw_only=True)
    fit: ProcrustesFit = field(default="batch", kw_only=True)
    reflection: bool = field(default=True, kw_only=True)
    center: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("input_fields", self.input_fields, [2])
        check_count("output_fields", self.output_fields, [1])
        check_choice("fit", self.fit, ProcrustesFit)
        check_positive("features", self.features)
        check_flag("reflection", self.reflection)
        check_flag("center", self.center)


class ProcrustesOperator(CrossModalOperator):
    """The first field `[d]` rotated onto the second: a vector for each record that has the first.

    The map is fitted on records with both fields, and applied to those without the second too. A
    stored map is the identity until `fit`; it is saved with the operator, and no optimizer trains
    it. See `functional.procrustes_transform` and `nn.ProcrustesMap`.

    Example:
      >>> config = ProcrustesOperatorConfig(
      ...     input_fields=["text", "image"], output_fields=["moved"], features=2, fit="stored"
      ... )
      >>> op = ProcrustesOperator(config)
      >>> x = jnp.eye(2)
      >>> op.fit(Batch.from_parts({"text": x, "image": -x}))
      >>> op(Batch.from_parts({"text": 3 * x}))["moved"].tolist()
      [[-3.0, 0.0], [0.0, -3.0]]
    """

    built_from = ("features", "fit", "reflection", "center")
    config: ProcrustesOperatorConfig
    config_class = ProcrustesOperatorConfig

    def __init__(
        self,
        config: ProcrustesOperatorConfig,
        *,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        if config.fit == "stored":
            self.map = ProcrustesMap(
                config.features, reflection=config.reflection, center=config.center
            )

    @property
    def required_fields(self) -> tuple[str, ...]:
        """The first field: what is mapped."""
        return (self.config.input_fields[0],)

    def check_batch(self, batch: Batch) -> None:
        """Raise as `CrossModalOperator.check_batch`; a stored map needs the first field only."""
        if self.config.fit == "batch":
            super().check_batch(batch)
        else:
            require_fields(batch.data, self.config.input_fields[:1])

    def fit(self, batch: Batch) -> None:
        """Keep the map that brings the first field of a batch closest to the second.

        Raises:
          KeyError: naming fields that the batch lacks.
          ValueError: if the config fits the map on each batch, or for vectors of another width.
        """
        if self.config.fit != "stored":
            raise ValueError(f"fit={self.config.fit!r} keeps no map: give fit='stored'")
        super().check_batch(batch)
        source, target = self.config.input_fields
        where = batch.where(source, target)
        self.map.fit(
            jnp.asarray(batch[source]),
            jnp.asarray(batch[target]),
            where=None if where is None else jnp.asarray(where),
        )

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """One record under the stored map.

        Raises:
          ValueError: if the config fits the map on each batch.
        """
        if self.config.fit == "batch":
            raise ValueError("fit='batch' relates rows: call the operator on a batch")
        moved = self.map(get_field(data, self.config.input_fields[0]))
        return self._store_outputs(data, [moved]), state, metadata

    def apply_batch(self, batch: Batch, stats: dict[str, Any] | None = None) -> Batch:
        """The rows under the stored map, or under that of `functional.procrustes_transform`."""
        config = self.config
        if config.fit == "stored":
            return super().apply_batch(batch, stats)
        self.check_batch(batch)
        source, target = self._extract_inputs(batch.data)
        check_width("features", config.features, source)
        moved = procrustes_transform(
            source,
            target,
            reflection=config.reflection,
            center=config.center,
            where=batch.where(*config.input_fields),
        )
        return batch.replace(data=self._store_outputs(batch.data, [moved]))


def check_width(name: str, width: int, x: Array) -> None:
    """Raise unless the vectors have the width that the config names.

    Raises:
      ValueError: with the shape that came.
    """
    if x.shape[1:] != (width,):
        raise ValueError(f"{name}={width} must be the width of the vectors, got {x.shape}")
