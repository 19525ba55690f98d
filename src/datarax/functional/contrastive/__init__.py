"""Losses that pull the records of a pair together and push the rest of the batch away."""

from datarax.functional.contrastive.late_interaction import late_interaction
from datarax.functional.contrastive.matching import matching_loss
from datarax.functional.contrastive.multimodal import pairwise_multimodal
from datarax.functional.contrastive.negatives import sample_hard_negatives
from datarax.functional.contrastive.pairs import average_over_pairs, mean_similarities
from datarax.functional.contrastive.sigmoid import sigmoid_contrastive, sigmoid_from_similarity
from datarax.functional.contrastive.softmax import info_nce, info_nce_from_similarity
from datarax.functional.contrastive.supervised import has_positive, supervised_contrastive
from datarax.functional.contrastive.symile import symile
from datarax.functional.contrastive.temperature import clamped_exp, sigmoid_bias_init
from datarax.functional.contrastive.triplet import triplet
from datarax.functional.contrastive.two_view import nt_xent
from datarax.functional.contrastive.volume import gram_volume, triangle_area, volume_contrastive

__all__ = [
    "average_over_pairs",
    "clamped_exp",
    "gram_volume",
    "has_positive",
    "info_nce",
    "info_nce_from_similarity",
    "late_interaction",
    "matching_loss",
    "mean_similarities",
    "nt_xent",
    "pairwise_multimodal",
    "sample_hard_negatives",
    "sigmoid_bias_init",
    "sigmoid_contrastive",
    "sigmoid_from_similarity",
    "supervised_contrastive",
    "symile",
    "triangle_area",
    "triplet",
    "volume_contrastive",
]
