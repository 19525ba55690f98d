"""Operators by name, from a table of a configuration file."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flax import nnx

from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig
from datarax.core.operator import OperatorModule
from datarax.core.precision import COMPUTE_DTYPES
from datarax.operators.alignment import AlignmentOperator
from datarax.operators.alignment_config import AlignmentOperatorConfig
from datarax.operators.attention_pool import AttentionPoolOperator, AttentionPoolOperatorConfig
from datarax.operators.audio import LogMel, LogMelConfig, SpecAugment, SpecAugmentConfig
from datarax.operators.co_attention import CoAttentionOperator, CoAttentionOperatorConfig
from datarax.operators.compose import Identity, OneOf, Sequential
from datarax.operators.contrastive import ContrastiveOperator
from datarax.operators.contrastive_config import ContrastiveOperatorConfig
from datarax.operators.cross_attention import CrossAttentionOperator, CrossAttentionOperatorConfig
from datarax.operators.field_choice import FieldChoice, FieldChoiceConfig
from datarax.operators.fusion import FusionOperator, FusionOperatorConfig
from datarax.operators.gated_cross_attention import (
    GatedCrossAttentionOperator,
    GatedCrossAttentionOperatorConfig,
)
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
from datarax.operators.image_random import (
    ColorJitter,
    ColorJitterConfig,
    RandomCrop,
    RandomCropConfig,
    RandomFlip,
    RandomFlipConfig,
    RandomResizedCrop,
    RandomResizedCropConfig,
)
from datarax.operators.latent_fusion import LatentFusionOperator, LatentFusionOperatorConfig
from datarax.operators.matching import MatchingOperator, MatchingOperatorConfig
from datarax.operators.presence import (
    MissingModalityEmbedding,
    MissingModalityEmbeddingConfig,
    ModalityDropout,
    ModalityDropoutConfig,
)
from datarax.operators.procrustes import ProcrustesOperator, ProcrustesOperatorConfig
from datarax.operators.q_former import QFormerOperator, QFormerOperatorConfig
from datarax.operators.text import (
    TokenDropout,
    TokenDropoutConfig,
    TokenMasking,
    TokenMaskingConfig,
)
from datarax.operators.transport import TransportOperator, TransportOperatorConfig

OPERATIONS: dict[str, tuple[type[CrossModalOperatorConfig], type[CrossModalOperator]]] = {
    "fusion": (FusionOperatorConfig, FusionOperator),
    "cross_attention": (CrossAttentionOperatorConfig, CrossAttentionOperator),
    "gated_cross_attention": (GatedCrossAttentionOperatorConfig, GatedCrossAttentionOperator),
    "attention_pool": (AttentionPoolOperatorConfig, AttentionPoolOperator),
    "co_attention": (CoAttentionOperatorConfig, CoAttentionOperator),
    "q_former": (QFormerOperatorConfig, QFormerOperator),
    "latent_fusion": (LatentFusionOperatorConfig, LatentFusionOperator),
    "contrastive": (ContrastiveOperatorConfig, ContrastiveOperator),
    "matching": (MatchingOperatorConfig, MatchingOperator),
    "alignment": (AlignmentOperatorConfig, AlignmentOperator),
    "procrustes": (ProcrustesOperatorConfig, ProcrustesOperator),
    "transport": (TransportOperatorConfig, TransportOperator),
    "modality_dropout": (ModalityDropoutConfig, ModalityDropout),
    "missing_modality": (MissingModalityEmbeddingConfig, MissingModalityEmbedding),
    "resize": (ResizeConfig, Resize),
    "crop": (CropConfig, Crop),
    "reshape": (ReshapeConfig, Reshape),
    "normalize": (NormalizeConfig, Normalize),
    "random_crop": (RandomCropConfig, RandomCrop),
    "random_resized_crop": (RandomResizedCropConfig, RandomResizedCrop),
    "random_flip": (RandomFlipConfig, RandomFlip),
    "color_jitter": (ColorJitterConfig, ColorJitter),
    "token_dropout": (TokenDropoutConfig, TokenDropout),
    "token_masking": (TokenMaskingConfig, TokenMasking),
    "log_mel": (LogMelConfig, LogMel),
    "spec_augment": (SpecAugmentConfig, SpecAugment),
    "field_choice": (FieldChoiceConfig, FieldChoice),
}


COMPOSITIONS: dict[str, tuple[str, ...]] = {
    "sequential": ("operators",),
    "one_of": ("operators", "probabilities", "stream_name"),
    "identity": (),
}


def build_operator(
    table: Mapping[str, Any], *, rngs: nnx.Rngs | None = None, name: str | None = None
) -> OperatorModule:
    """The operator that a table of a TOML file describes.

    Args:
      table: `operation` and the fields of its config. A table without `method`, `features` or any
        other field of its own gives the operator with the plain `CrossModalOperatorConfig`. Of
        `"sequential"` and `"one_of"` the field `operators` is a list of such tables. Any table may
        set `compute_dtype`, the dtype in which that operator computes.
      rngs: random number generators.
      name: a name for messages and reports.

    Raises:
      ValueError: for an operation or key that there is not, with the nearest that there is, for a
        key that lacks, or from the config.
      TypeError: if the table is none.

    Example:
      >>> table = {"operation": "fusion", "input_fields": ["a", "b"], "output_fields": ["c"]}
      >>> type(build_operator(table)).__name__
      'FusionOperator'
    """
    if not isinstance(table, Mapping):
        raise TypeError(f"an operator is built from a table, got {table!r}")
    operation = table.get("operation", "fusion")
    choices = [*OPERATIONS, *COMPOSITIONS]
    if not isinstance(operation, str) or operation not in choices:
        raise ValueError(f"operation {operation!r} is unknown{_nearest(operation, choices)}")
    if "compute_dtype" in table:
        dtype = _compute_dtype(table["compute_dtype"])
        rest = {key: value for key, value in table.items() if key != "compute_dtype"}
        built = build_operator(rest, rngs=rngs, name=name)
        built.compute_dtype = dtype
        return built
    if operation in COMPOSITIONS:
        return _composition(operation, table, rngs=rngs, name=name)
    own, operator = OPERATIONS[operation]
    _check_keys(operation, table, [f.name for f in dataclasses.fields(own)])
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


def _composition(
    operation: str, table: Mapping[str, Any], *, rngs: nnx.Rngs | None, name: str | None
) -> OperatorModule:
    _check_keys(operation, table, ["operation", *COMPOSITIONS[operation]])
    if operation == "identity":
        return Identity(name=name)
    tables = table.get("operators")
    if not isinstance(tables, list) or not all(isinstance(part, Mapping) for part in tables):
        raise ValueError(f"operators of {operation!r} must be a list of tables, got {tables!r}")
    parts = []
    for place, part in enumerate(tables):
        try:
            parts.append(build_operator(part, rngs=rngs))
        except ValueError as error:
            raise ValueError(f"operators[{place}] of {operation!r}: {error}") from error
    if operation == "sequential":
        return Sequential(parts, name=name)
    options = {key: value for key, value in table.items() if key not in ("operation", "operators")}
    return OneOf(parts, **options, rngs=rngs, name=name)


def _check_keys(operation: str, table: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in table:
        if key not in known:
            raise ValueError(
                f"key {key!r} of operation {operation!r} is unknown{_nearest(key, known)}"
            )


def _compute_dtype(value: Any) -> str:
    if value not in COMPUTE_DTYPES:
        raise ValueError(f"compute_dtype must be one of {list(COMPUTE_DTYPES)}, got {value!r}")
    return value


def _has_plain(operation: str) -> bool:
    return operation in ("fusion", "contrastive", "alignment")


def _nearest(word: Any, choices: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(word), list(choices), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; choose one of {sorted(choices)}"
