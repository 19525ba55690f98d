"""Operators on batches, each over functions on arrays (`datarax.functional`, `datarax.nn`)."""

from datarax.operators.alignment import AlignmentOperator, AlignmentOperatorConfig
from datarax.operators.audio import LogMel, LogMelConfig, SpecAugment, SpecAugmentConfig
from datarax.operators.build import build_operator
from datarax.operators.compose import Identity, OneOf, Sequential
from datarax.operators.contrastive import ContrastiveOperator, ContrastiveOperatorConfig
from datarax.operators.cross_attention import CrossAttentionOperator, CrossAttentionOperatorConfig
from datarax.operators.field_choice import FieldChoice, FieldChoiceConfig
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
from datarax.operators.presence import ModalityDropout, ModalityDropoutConfig
from datarax.operators.text import (
    TokenDropout,
    TokenDropoutConfig,
    TokenMasking,
    TokenMaskingConfig,
)

__all__ = [
    "AlignmentOperator",
    "AlignmentOperatorConfig",
    "ColorJitter",
    "ColorJitterConfig",
    "ContrastiveOperator",
    "ContrastiveOperatorConfig",
    "Crop",
    "CropConfig",
    "CrossAttentionOperator",
    "CrossAttentionOperatorConfig",
    "FieldChoice",
    "FieldChoiceConfig",
    "FusionOperator",
    "FusionOperatorConfig",
    "Identity",
    "LogMel",
    "LogMelConfig",
    "ModalityDropout",
    "ModalityDropoutConfig",
    "Normalize",
    "NormalizeConfig",
    "OneOf",
    "RandomCrop",
    "RandomCropConfig",
    "RandomFlip",
    "RandomFlipConfig",
    "RandomResizedCrop",
    "RandomResizedCropConfig",
    "Reshape",
    "ReshapeConfig",
    "Resize",
    "ResizeConfig",
    "Sequential",
    "SpecAugment",
    "SpecAugmentConfig",
    "TokenDropout",
    "TokenDropoutConfig",
    "TokenMasking",
    "TokenMaskingConfig",
    "build_operator",
]
