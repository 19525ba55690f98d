"""Alignment: how far the modalities of a record, or of a batch, are apart."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig
from datarax.core.element_batch import Batch
from datarax.functional.alignment.distances import cosine_alignment
from datarax.operators.alignment_config import AlignmentOperatorConfig
from datarax.operators.alignment_losses import OF_BATCHES, OF_RECORDS, state_terms, vectors
from datarax.operators.checks import check_count


class AlignmentOperator(CrossModalOperator):
    """Distance of fields `[d]`, for each record `[]`.

    With a plain `CrossModalOperatorConfig` it is 1 - cosine of two fields, with an
    `AlignmentOperatorConfig` any of its methods. A loss of the whole batch is the same in every
    row. A record needs all the fields: one without is as if it were not in the batch.
    `batch_state` gets the terms of VICReg under the name of the loss.

    Example:
      >>> config = AlignmentOperatorConfig(
      ...     input_fields=["image", "text"], output_fields=["loss"], method="barlow_twins"
      ... )
      >>> x = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
      >>> batch = AlignmentOperator(config)(Batch.from_parts({"image": x, "text": 5 * x}))
      >>> round(float(batch.mean("loss")), 4)
      0.0
    """

    def __init__(
        self,
        config: CrossModalOperatorConfig,
        *,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        if not isinstance(config, AlignmentOperatorConfig):
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
        inputs = self._extract_inputs(data)
        if not isinstance(config, AlignmentOperatorConfig):
            loss = cosine_alignment(*inputs)
        elif config.method in OF_RECORDS:
            loss = OF_RECORDS[config.method](config, *vectors(config, inputs))
        else:
            raise ValueError(f"{config.method} relates rows: call the operator on a batch")
        return self._store_outputs(data, [loss]), state, metadata

    def apply_batch(self, batch: Batch, stats: dict[str, Any] | None = None) -> Batch:
        """The distances of a batch; see `operators.alignment_losses`."""
        config = self.config
        if not isinstance(config, AlignmentOperatorConfig) or config.method in OF_RECORDS:
            return super().apply_batch(batch, stats)
        self.check_batch(batch)
        inputs = vectors(config, self._extract_inputs(batch.data))
        where = batch.where(*config.input_fields)
        loss = OF_BATCHES[config.method](config, inputs, where)
        return batch.replace(
            data=self._store_outputs(batch.data, [jnp.broadcast_to(loss, (batch.batch_size,))]),
            batch_state=_with_terms(
                batch.batch_state, config.output_fields[0], state_terms(config, inputs, where)
            ),
        )


def _with_terms(batch_state: Any, name: str, terms: dict[str, Array]) -> Any:
    """The batch's state with the loss's terms under its name; any other state is left alone."""
    if not terms or (batch_state is not None and not isinstance(batch_state, Mapping)):
        return batch_state
    return {**(batch_state or {}), name: terms}
