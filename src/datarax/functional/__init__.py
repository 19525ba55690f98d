"""Pure functions on arrays: similarities, losses, attention, fusion, alignment, retrieval."""

from datarax.functional.alignment import (
    alignment_loss,
    centroid_uniformity,
    cosine_alignment,
    huber_alignment,
    huber_penalty,
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
from datarax.functional.correlation import cca_loss
from datarax.functional.distillation import (
    relational_angle,
    relational_distance,
    similarity_distillation,
)
from datarax.functional.fusion import (
    attention_weighted_sum,
    gated_sum,
    masked_concatenate,
    weighted_sum,
)
from datarax.functional.kernels import cka, hsic, kernel_matrix
from datarax.functional.masking import (
    masked_logsumexp,
    masked_mean,
    masked_softmax,
    safe_l2_norm,
    safe_l2_normalize,
)
from datarax.functional.moments import centered_rows, cross_covariance
from datarax.functional.procrustes import orthogonal_map, procrustes_residual
from datarax.functional.redundancy import VICRegTerms, barlow_twins, vicreg, vicreg_terms
from datarax.functional.relational import (
    cross_modal_consistency,
    in_modal_consistency,
    similarity_matching,
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
    "VICRegTerms",
    "alignment_loss",
    "attention_weighted_sum",
    "barlow_twins",
    "cca_loss",
    "centered_rows",
    "centroid_uniformity",
    "cka",
    "clamped_exp",
    "cosine_alignment",
    "cosine_similarity",
    "cross_covariance",
    "cross_modal_consistency",
    "dot_product_attention",
    "gated_sum",
    "hsic",
    "huber_alignment",
    "huber_penalty",
    "in_modal_consistency",
    "info_nce",
    "kernel_matrix",
    "masked_concatenate",
    "masked_logsumexp",
    "masked_mean",
    "masked_softmax",
    "mean_rank",
    "mean_reciprocal_rank",
    "median_rank",
    "modality_gap",
    "orthogonal_map",
    "pairwise_cosine_similarity",
    "pairwise_dot_product",
    "pairwise_multimodal",
    "pairwise_squared_distance",
    "procrustes_residual",
    "ranks",
    "recall_at_k",
    "relational_angle",
    "relational_distance",
    "safe_l2_norm",
    "safe_l2_normalize",
    "sigmoid_bias_init",
    "sigmoid_contrastive",
    "similarity_distillation",
    "similarity_matching",
    "squared_error_alignment",
    "uniformity",
    "vicreg",
    "vicreg_terms",
    "weighted_sum",
]
