"""How well queries find their targets in the report: one direction, as plain numbers."""

import jax
import jax.numpy as jnp
import numpy as np

from datarax.functional.retrieval.ranks import contest, hit_probability, rank_of

PLACES = (1, 5, 10)


def relevant_targets(query_groups: np.ndarray, target_groups: np.ndarray) -> np.ndarray:
    """Which target answers which query: bool [n, n].

    Target j answers query i if it equals target i, or query j equals query i: three characters
    drawn alike share their three names, since nothing in the picture tells them apart.
    """
    same_query = query_groups[:, None] == query_groups[None, :]
    return same_query | (target_groups[:, None] == target_groups[None, :])


def retrieval_metrics(scores: np.ndarray, relevant: np.ndarray) -> dict[str, float]:
    """Means over the queries: recall at 1, 5 and 10, mean reciprocal rank, mean and median rank.

    Equal scores count as the mean over their orders (`functional.retrieval`), in the precision of
    the scores. The reciprocal is taken of the expected rank.

    Args:
      scores: [n, m], higher is better.
      relevant: bool [n, m], at least one True in each row.
    """
    ranks, hits = _judged(scores, relevant)
    return {
        **_means(hits),
        "median_rank": float(np.median(ranks)),
        "mean_rank": float(ranks.mean()),
        "mrr": float((1 / ranks).mean()),
    }


def recalls(scores: np.ndarray, relevant: np.ndarray) -> dict[str, float]:
    """Recall at 1, 5 and 10: of any target that answers, equal scores in random order."""
    return _means(_judged(scores, relevant)[1])


def chance_recalls(relevant: np.ndarray) -> dict[str, float]:
    """Recall at 1, 5 and 10 of targets in random order."""
    return recalls(np.zeros(relevant.shape), relevant)


def _judged(scores: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The ranks, from 1, and whether each of `PLACES` is enough, in float64."""
    with jax.enable_x64(True):
        ranks, hits = _judge(jnp.asarray(scores), jnp.asarray(relevant))
        return 1 + np.asarray(ranks), [np.asarray(hit) for hit in hits]


@jax.jit
def _judge(scores: jax.Array, relevant: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    found = contest(scores, relevant)
    return rank_of(found), [hit_probability(found, k=k) for k in PLACES]


def _means(hits: list[np.ndarray]) -> dict[str, float]:
    return {f"recall_at_{k}": float(hit.mean()) for k, hit in zip(PLACES, hits, strict=True)}
