"""Modules on arrays: projections, temperature, fusion, attention. Parameters are float32."""

from datarax.nn.attention import CrossAttention
from datarax.nn.bilinear import BlockFusion, FactorizedBilinearFusion, TuckerFusion
from datarax.nn.co_attention import CoAttention
from datarax.nn.experts import ExpertsFusion
from datarax.nn.feed_forward import FeedForward
from datarax.nn.fusion import (
    AttentionFusion,
    ConcatFusion,
    GatedFusion,
    SumFusion,
    WeightedSumFusion,
)
from datarax.nn.gated_attention import GatedCrossAttention
from datarax.nn.gating import FiLMFusion, SigmoidGateFusion
from datarax.nn.latent import LatentFusion
from datarax.nn.linear import Linear
from datarax.nn.matching import MatchingHead
from datarax.nn.metrics import EmbeddingGeometry, GalleryRetrieval, RetrievalBuffer
from datarax.nn.multiplicative import MultiplicativeFusion
from datarax.nn.normalization import LayerNorm, RMSNorm
from datarax.nn.pooling import AttentionPool
from datarax.nn.procrustes import ProcrustesMap
from datarax.nn.projection import LogitScale, ProjectionHead
from datarax.nn.q_former import QFormerBlock
from datarax.nn.queue import EmbeddingQueue
from datarax.nn.tensor_fusion import LowRankTensorFusion, TensorFusion
from datarax.nn.token_fusion import BottleneckFusion, TransformerFusion
from datarax.nn.transformer import TransformerBlock

__all__ = [
    "AttentionFusion",
    "AttentionPool",
    "BlockFusion",
    "BottleneckFusion",
    "CoAttention",
    "ConcatFusion",
    "CrossAttention",
    "EmbeddingGeometry",
    "EmbeddingQueue",
    "ExpertsFusion",
    "FactorizedBilinearFusion",
    "FeedForward",
    "FiLMFusion",
    "GalleryRetrieval",
    "GatedCrossAttention",
    "GatedFusion",
    "LatentFusion",
    "LayerNorm",
    "Linear",
    "LogitScale",
    "LowRankTensorFusion",
    "MatchingHead",
    "MultiplicativeFusion",
    "ProcrustesMap",
    "ProjectionHead",
    "QFormerBlock",
    "RMSNorm",
    "RetrievalBuffer",
    "SigmoidGateFusion",
    "SumFusion",
    "TensorFusion",
    "TransformerBlock",
    "TransformerFusion",
    "TuckerFusion",
    "WeightedSumFusion",
]
