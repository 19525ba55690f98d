"""How well representations agree: distances, correlations, kernels, relations, maps."""

from datarax.functional.alignment.correlation import cca_loss
from datarax.functional.alignment.distances import (
    alignment_loss,
    centroid_uniformity,
    cosine_alignment,
    huber_alignment,
    huber_penalty,
    modality_gap,
    squared_error_alignment,
    uniformity,
)
from datarax.functional.alignment.distillation import (
    relational_angle,
    relational_distance,
    similarity_distillation,
)
from datarax.functional.alignment.kernels import cka, hsic, kernel_matrix
from datarax.functional.alignment.moments import centered_rows, cross_covariance
from datarax.functional.alignment.procrustes import (
    orthogonal_map,
    procrustes_residual,
    procrustes_transform,
)
from datarax.functional.alignment.redundancy import VICRegTerms, barlow_twins, vicreg, vicreg_terms
from datarax.functional.alignment.relational import (
    cross_modal_consistency,
    in_modal_consistency,
    similarity_matching,
)

__all__ = [
    "VICRegTerms",
    "alignment_loss",
    "barlow_twins",
    "cca_loss",
    "centered_rows",
    "centroid_uniformity",
    "cka",
    "cosine_alignment",
    "cross_covariance",
    "cross_modal_consistency",
    "hsic",
    "huber_alignment",
    "huber_penalty",
    "in_modal_consistency",
    "kernel_matrix",
    "modality_gap",
    "orthogonal_map",
    "procrustes_residual",
    "procrustes_transform",
    "relational_angle",
    "relational_distance",
    "similarity_distillation",
    "similarity_matching",
    "squared_error_alignment",
    "uniformity",
    "vicreg",
    "vicreg_terms",
]
