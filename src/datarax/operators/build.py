"""Operators by name, from a table of a configuration file."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from flax import nnx

from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig
from datarax.operators.alignment import AlignmentOperator, AlignmentOperatorConfig
from datarax.operators.contrastive import ContrastiveOperator, ContrastiveOperatorConfig
from datarax.operators.cross_attention import CrossAttentionOperator, CrossAttentionOperatorConfig
from datarax.operators.fusion import FusionOperator, FusionOperatorConfig
from datarax.operators.image import (
    Crop,
    CropConfig,
    Normalize,
    NormalizeConfig,
    Reshape,
    ReshapeConfig,
    Resize,
    ResizeConfig,
)
from datarax.operators.presence import ModalityDropout, ModalityDropoutConfig

OPERATIONS: dict[str, tuple[type[CrossModalOperatorConfig], type[CrossModalOperator]]] = {
    "fusion": (FusionOperatorConfig, FusionOperator),
    "cross_attention": (CrossAttentionOperatorConfig, CrossAttentionOperator),
    "contrastive": (ContrastiveOperatorConfig, ContrastiveOperator),
    "alignment": (AlignmentOperatorConfig, AlignmentOperator),
    "modality_dropout": (ModalityDropoutConfig, ModalityDropout),
    "resize": (ResizeConfig, Resize),
    "crop": (CropConfig, Crop),
    "reshape": (ReshapeConfig, Reshape),
    "normalize": (NormalizeConfig, Normalize),
}


def build_operator(
    table: Mapping[str, Any], *, rngs: nnx.Rngs | None = None, name: str | None = None
) -> CrossModalOperator:
    """The operator that a table of a TOML file describes.

    Args:
      table: `operation` and the fields of its config. A table without `method`, `features` or any
        other field of its own gives the operator with the plain `CrossModalOperatorConfig`.
      rngs: random number generators.
      name: a name for messages and reports.

    Raises:
      ValueError: for an operation or key that there is not, with the nearest that there is, for a
        key that lacks, or from the config.

    Example:
      >>> table = {"operation": "fusion", "input_fields": ["a", "b"], "output_fields": ["c"]}
      >>> type(build_operator(table)).__name__
      'FusionOperator'
    """
    operation = table.get("operation", "fusion")
    if not isinstance(operation, str) or operation not in OPERATIONS:
        raise ValueError(f"operation {operation!r} is unknown{_nearest(operation, OPERATIONS)}")
    own, operator = OPERATIONS[operation]
    known = {f.name: f for f in dataclasses.fields(own)}
    for key in table:
        if key not in known:
            raise ValueError(
                f"key {key!r} of operation {operation!r} is unknown{_nearest(key, known)}"
            )
    plain = {f.name for f in dataclasses.fields(CrossModalOperatorConfig)}
    config = CrossModalOperatorConfig if set(table) <= plain and _has_plain(operation) else own
    lacking = [
        f.name
        for f in dataclasses.fields(config)
        if f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
        and f.name not in table
    ]
    if lacking:
        raise ValueError(f"operation {operation!r} needs {lacking}")
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) and not key.endswith("_fields") else value
        for key, value in table.items()
    }
    return operator(config(**values), rngs=rngs, name=name)


def _has_plain(operation: str) -> bool:
    return operation in ("fusion", "contrastive", "alignment")


def _nearest(word: Any, choices: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(word), list(choices), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; choose one of {sorted(choices)}"
