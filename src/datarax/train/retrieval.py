"""How well queries find their targets, with ties and equal content counted honestly."""

import numpy as np


def relevant_targets(query_groups: np.ndarray, target_groups: np.ndarray) -> np.ndarray:
    """Which target answers which query: bool [n, n].

    Target j answers query i if it equals target i, or query j equals query i: three characters
    drawn alike share their three names, since nothing in the picture tells them apart.
    """
    same_query = query_groups[:, None] == query_groups[None, :]
    return same_query | (target_groups[:, None] == target_groups[None, :])


def _contest(scores: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, ...]:
    """For each query: wrong targets above its best right one, wrong ones and right ones beside."""
    best = np.max(np.where(relevant, scores, -np.inf), axis=1, keepdims=True)
    above = ((scores > best) & ~relevant).sum(axis=1)
    level = scores == best
    return above, (level & ~relevant).sum(axis=1), (level & relevant).sum(axis=1)


def expected_ranks(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """The rank, from 1, of the first right target; equal scores in random order: float [n].

    $1 + a + w / (r + 1)$ with `a` wrong targets above, and `w` wrong and `r` right ones that tie.

    Args:
      scores: [n, m], higher is better.
      relevant: bool [n, m], at least one True in each row.
    """
    above, wrong, right = _contest(scores, relevant)
    return 1 + above + wrong / (right + 1)


def recall_at(scores: np.ndarray, relevant: np.ndarray, *, k: int) -> np.ndarray:
    r"""The probability that a right target is among the first `k`: float [n] in [0, 1].

    Equal scores are in random order: $1 - \binom{w}{s} / \binom{w + r}{s}$ for the $s = k - a$
    places that are left after the `a` wrong targets above.

    Args:
      scores, relevant: as in `expected_ranks`.
      k: how many places, at least 1.
    """
    above, wrong, right = _contest(scores, relevant)
    miss = np.ones(len(scores))
    for place in range(k):
        share = np.maximum(wrong - place, 0) / np.maximum(wrong + right - place, 1)
        miss = np.where(place < k - above, miss * share, miss)
    return 1 - miss


def retrieval_metrics(scores: np.ndarray, relevant: np.ndarray) -> dict[str, float]:
    """Means over the queries: recall at 1, 5 and 10, mean reciprocal rank, mean and median rank.

    The reciprocal is taken of the expected rank where scores tie.

    Args:
      scores, relevant: as in `expected_ranks`.
    """
    ranks = expected_ranks(scores, relevant)
    return {
        **recalls(scores, relevant),
        "median_rank": float(np.median(ranks)),
        "mean_rank": float(ranks.mean()),
        "mrr": float((1 / ranks).mean()),
    }


def recalls(scores: np.ndarray, relevant: np.ndarray) -> dict[str, float]:
    """Recall at 1, 5 and 10."""
    return {f"recall_at_{k}": float(recall_at(scores, relevant, k=k).mean()) for k in (1, 5, 10)}


def chance_recalls(relevant: np.ndarray) -> dict[str, float]:
    """Recall at 1, 5 and 10 of targets in random order."""
    return recalls(np.zeros(relevant.shape), relevant)
