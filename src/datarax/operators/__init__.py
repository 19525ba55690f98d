"""Operators on batches, each over functions on arrays (`datarax.functional`, `datarax.nn`)."""

from datarax.operators.alignment import AlignmentOperator
from datarax.operators.alignment_config import AlignmentOperatorConfig
from datarax.operators.attention_pool import AttentionPoolOperator, AttentionPoolOperatorConfig
from datarax.operators.audio import LogMel, LogMelConfig, SpecAugment, SpecAugmentConfig
from datarax.operators.build import build_operator
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

__all__ = [
    "AlignmentOperator",
    "AlignmentOperatorConfig",
    "AttentionPoolOperator",
    "AttentionPoolOperatorConfig",
    "CoAttentionOperator",
    "CoAttentionOperatorConfig",
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
    "GatedCrossAttentionOperator",
    "GatedCrossAttentionOperatorConfig",
    "Identity",
    "LatentFusionOperator",
    "LatentFusionOperatorConfig",
    "LogMel",
    "LogMelConfig",
    "MatchingOperator",
    "MatchingOperatorConfig",
    "MissingModalityEmbedding",
    "MissingModalityEmbeddingConfig",
    "ModalityDropout",
    "ModalityDropoutConfig",
    "Normalize",
    "NormalizeConfig",
    "OneOf",
    "ProcrustesOperator",
    "ProcrustesOperatorConfig",
    "QFormerOperator",
    "QFormerOperatorConfig",
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
    "TransportOperator",
    "TransportOperatorConfig",
    "build_operator",
]
