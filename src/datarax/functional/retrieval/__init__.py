"""Ranks of what belongs to a query, and the figures made of them."""

from datarax.functional.retrieval.counting import Contest
from datarax.functional.retrieval.rank_statistics import (
    mean_rank,
    mean_reciprocal_rank,
    median_rank,
    recall_at_k,
)
from datarax.functional.retrieval.ranking import (
    RankedRelevance,
    average_precision_at_r,
    r_precision,
    ranked_relevance,
    recall_sum,
    retrieval_metrics,
    true_recall_at_k,
)
from datarax.functional.retrieval.ranks import (
    contest,
    contests,
    expected_reciprocal_rank,
    hit_probability,
    rank_of,
    ranks,
    two_way_contests,
)

__all__ = [
    "Contest",
    "RankedRelevance",
    "average_precision_at_r",
    "contest",
    "contests",
    "expected_reciprocal_rank",
    "hit_probability",
    "mean_rank",
    "mean_reciprocal_rank",
    "median_rank",
    "r_precision",
    "rank_of",
    "ranked_relevance",
    "ranks",
    "recall_at_k",
    "recall_sum",
    "retrieval_metrics",
    "true_recall_at_k",
    "two_way_contests",
]
