"""Pure functions on arrays: similarities, losses, attention, fusion, retrieval, media."""

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
from datarax.functional.attention_masks import media_location_mask, query_text_mask
from datarax.functional.audio import (
    frame_mask,
    log_mel_spectrogram,
    mask_spans,
    mel_filterbank,
    power_spectrogram,
)
from datarax.functional.bilinear import (
    block_product,
    hadamard_product,
    mfb_product,
    mfh_product,
    mutan_product,
    power_normalize,
    signed_sqrt,
    tucker_product,
)
from datarax.functional.classification import (
    class_embeddings,
    logit_statistics,
    zero_shot_accuracy,
)
from datarax.functional.color import (
    adjust_brightness,
    adjust_color,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
)
from datarax.functional.contrastive import (
    clamped_exp,
    gram_volume,
    has_positive,
    info_nce,
    info_nce_from_similarity,
    late_interaction,
    nt_xent,
    pairwise_multimodal,
    sample_hard_negatives,
    sigmoid_bias_init,
    sigmoid_contrastive,
    sigmoid_from_similarity,
    supervised_contrastive,
    symile,
    triangle_area,
    triplet,
    volume_contrastive,
)
from datarax.functional.correlation import cca_loss
from datarax.functional.distillation import (
    relational_angle,
    relational_distance,
    similarity_distillation,
)
from datarax.functional.experts import mixture_of_experts, product_of_experts
from datarax.functional.fusion import (
    attention_weighted_sum,
    gated_sum,
    masked_concatenate,
    weighted_sum,
)
from datarax.functional.gating import feature_modulation, gated_product
from datarax.functional.gromov import GromovTransport, gromov_wasserstein
from datarax.functional.image import crop, flip, normalize, pad, resize, resized_crop
from datarax.functional.kernels import cka, hsic, kernel_matrix
from datarax.functional.masking import (
    masked_logsumexp,
    masked_mean,
    masked_softmax,
    safe_l2_norm,
    safe_l2_normalize,
)
from datarax.functional.matching import matching_loss
from datarax.functional.moments import centered_rows, cross_covariance
from datarax.functional.multiplicative import multiplicative_interaction
from datarax.functional.normalization import layer_norm
from datarax.functional.pairs import average_over_pairs, mean_similarities
from datarax.functional.procrustes import orthogonal_map, procrustes_residual, procrustes_transform
from datarax.functional.rank_statistics import (
    mean_rank,
    mean_reciprocal_rank,
    median_rank,
    recall_at_k,
)
from datarax.functional.ranking import (
    RankedRelevance,
    average_precision_at_r,
    r_precision,
    ranked_relevance,
    retrieval_metrics,
    true_recall_at_k,
)
from datarax.functional.redundancy import VICRegTerms, barlow_twins, vicreg, vicreg_terms
from datarax.functional.relational import (
    cross_modal_consistency,
    in_modal_consistency,
    similarity_matching,
)
from datarax.functional.representation import (
    cca_correlation,
    cknna,
    distribution_gap,
    effective_rank,
    mutual_knn,
)
from datarax.functional.retrieval import (
    Contest,
    contest,
    contests,
    expected_reciprocal_rank,
    hit_probability,
    rank_of,
    ranks,
)
from datarax.functional.root_mean_square import rms_norm
from datarax.functional.rotary import rotary_embedding
from datarax.functional.shared_similarity import co_attention
from datarax.functional.similarity import (
    cosine_similarity,
    pairwise_cosine_similarity,
    pairwise_dot_product,
    pairwise_squared_distance,
)
from datarax.functional.tensor_fusion import low_rank_tensor, outer_product
from datarax.functional.text import keep_tokens, mask_tokens
from datarax.functional.transport import (
    Transport,
    partial_sinkhorn,
    sinkhorn,
    unbalanced_sinkhorn,
)
from datarax.functional.transport_sets import (
    sinkhorn_divergence,
    transport_cost,
    transport_features,
)

__all__ = [
    "Contest",
    "GromovTransport",
    "RankedRelevance",
    "Transport",
    "VICRegTerms",
    "adjust_brightness",
    "adjust_color",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "alignment_loss",
    "attention_weighted_sum",
    "average_over_pairs",
    "average_precision_at_r",
    "barlow_twins",
    "block_product",
    "cca_correlation",
    "cca_loss",
    "centered_rows",
    "centroid_uniformity",
    "cka",
    "cknna",
    "clamped_exp",
    "class_embeddings",
    "co_attention",
    "contest",
    "contests",
    "cosine_alignment",
    "cosine_similarity",
    "crop",
    "cross_covariance",
    "cross_modal_consistency",
    "distribution_gap",
    "dot_product_attention",
    "effective_rank",
    "expected_reciprocal_rank",
    "feature_modulation",
    "flip",
    "frame_mask",
    "gated_product",
    "gated_sum",
    "gram_volume",
    "gromov_wasserstein",
    "hadamard_product",
    "has_positive",
    "hit_probability",
    "hsic",
    "huber_alignment",
    "huber_penalty",
    "in_modal_consistency",
    "info_nce",
    "info_nce_from_similarity",
    "keep_tokens",
    "kernel_matrix",
    "late_interaction",
    "layer_norm",
    "log_mel_spectrogram",
    "logit_statistics",
    "low_rank_tensor",
    "mask_spans",
    "mask_tokens",
    "masked_concatenate",
    "masked_logsumexp",
    "masked_mean",
    "masked_softmax",
    "matching_loss",
    "mean_rank",
    "mean_reciprocal_rank",
    "mean_similarities",
    "media_location_mask",
    "median_rank",
    "mel_filterbank",
    "mfb_product",
    "mfh_product",
    "mixture_of_experts",
    "modality_gap",
    "multiplicative_interaction",
    "mutan_product",
    "mutual_knn",
    "normalize",
    "nt_xent",
    "orthogonal_map",
    "outer_product",
    "pad",
    "pairwise_cosine_similarity",
    "pairwise_dot_product",
    "pairwise_multimodal",
    "pairwise_squared_distance",
    "partial_sinkhorn",
    "power_normalize",
    "power_spectrogram",
    "procrustes_residual",
    "procrustes_transform",
    "product_of_experts",
    "query_text_mask",
    "r_precision",
    "rank_of",
    "ranked_relevance",
    "ranks",
    "recall_at_k",
    "relational_angle",
    "relational_distance",
    "resize",
    "resized_crop",
    "retrieval_metrics",
    "rms_norm",
    "rotary_embedding",
    "safe_l2_norm",
    "safe_l2_normalize",
    "sample_hard_negatives",
    "sigmoid_bias_init",
    "sigmoid_contrastive",
    "sigmoid_from_similarity",
    "signed_sqrt",
    "similarity_distillation",
    "similarity_matching",
    "sinkhorn",
    "sinkhorn_divergence",
    "squared_error_alignment",
    "supervised_contrastive",
    "symile",
    "transport_cost",
    "transport_features",
    "triangle_area",
    "triplet",
    "true_recall_at_k",
    "tucker_product",
    "unbalanced_sinkhorn",
    "uniformity",
    "vicreg",
    "vicreg_terms",
    "volume_contrastive",
    "weighted_sum",
    "zero_shot_accuracy",
]
