"""Pure functions on arrays: similarities, losses, attention, fusion, alignment, retrieval."""

from datarax.functional.alignment import (
    alignment_loss,
    cosine_alignment,
    modality_gap,
    squared_error_alignment,
    uniformity,
)
from datarax.functional.attention import dot_product_attention
from datarax.functional.contrastive import (
    clamped_exp,
    info_nce,
    pairwise_multimodal,
    sigmoid_bias_init,
    sigmoid_contrastive,
)
from datarax.functional.fusion import (
    attention_weighted_sum,
    gated_sum,
    masked_concatenate,
    weighted_sum,
)
from datarax.functional.masking import (
    masked_logsumexp,
    masked_mean,
    masked_softmax,
    safe_l2_norm,
    safe_l2_normalize,
)
from datarax.functional.retrieval import (
    mean_rank,
    mean_reciprocal_rank,
    median_rank,
    ranks,
    recall_at_k,
)
from datarax.functional.similarity import (
    cosine_similarity,
    pairwise_cosine_similarity,
    pairwise_dot_product,
    pairwise_squared_distance,
)

__all__ = [
    "alignment_loss",
    "attention_weighted_sum",
    "clamped_exp",
    "cosine_alignment",
    "cosine_similarity",
    "dot_product_attention",
    "gated_sum",
    "info_nce",
    "masked_concatenate",
    "masked_logsumexp",
    "masked_mean",
    "masked_softmax",
    "mean_rank",
    "mean_reciprocal_rank",
    "median_rank",
    "modality_gap",
    "pairwise_cosine_similarity",
    "pairwise_dot_product",
    "pairwise_multimodal",
    "pairwise_squared_distance",
    "ranks",
    "recall_at_k",
    "safe_l2_norm",
    "safe_l2_normalize",
    "sigmoid_bias_init",
    "sigmoid_contrastive",
    "squared_error_alignment",
    "uniformity",
    "weighted_sum",
]
