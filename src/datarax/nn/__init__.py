"""Modules on arrays: projections, temperature, fusion, attention. Parameters are float32."""

from datarax.nn.attention import CrossAttention
from datarax.nn.fusion import AttentionFusion, ConcatFusion, GatedFusion, WeightedSumFusion
from datarax.nn.linear import Linear
from datarax.nn.matching import MatchingHead
from datarax.nn.projection import LogitScale, ProjectionHead
from datarax.nn.queue import EmbeddingQueue

__all__ = [
    "AttentionFusion",
    "ConcatFusion",
    "CrossAttention",
    "EmbeddingQueue",
    "GatedFusion",
    "Linear",
    "LogitScale",
    "MatchingHead",
    "ProjectionHead",
    "WeightedSumFusion",
]
