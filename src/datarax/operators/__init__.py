"""Operators on batches, each over functions on arrays (`datarax.functional`, `datarax.nn`)."""

from datarax.operators.alignment import AlignmentOperator, AlignmentOperatorConfig
from datarax.operators.build import build_operator
from datarax.operators.compose import Sequential
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

__all__ = [
    "AlignmentOperator",
    "AlignmentOperatorConfig",
    "ContrastiveOperator",
    "ContrastiveOperatorConfig",
    "Crop",
    "CropConfig",
    "CrossAttentionOperator",
    "CrossAttentionOperatorConfig",
    "FusionOperator",
    "FusionOperatorConfig",
    "ModalityDropout",
    "ModalityDropoutConfig",
    "Normalize",
    "NormalizeConfig",
    "Reshape",
    "ReshapeConfig",
    "Resize",
    "ResizeConfig",
    "Sequential",
    "build_operator",
]
