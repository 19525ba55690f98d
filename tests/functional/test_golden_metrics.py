"""Values of the originals' measures (tools/golden/metrics.py), named in each failure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_file import Golden, assert_close

from datarax import functional

GOLDEN = Golden("metrics")


def of_ranks(a, b):
    """open_clip's rounded-down median, counted from 1 as its mean is."""
    ranks, counted = functional.ranks(a, b)
    recalls = [functional.recall_at_k(ranks, k=k, where=counted) for k in (1, 5, 10)]
    median = functional.median_rank(ranks, where=counted, floor=True)
    return jnp.stack([functional.mean_rank(ranks, where=counted), median, *recalls])


def true_recall(a, b, positives):
    ranked = functional.ranked_relevance(a @ b.T, positives)
    return jnp.stack([functional.true_recall_at_k(ranked, k=k) for k in (1, 3, 5)])


def labelled(a, b, ids_a, ids_b):
    names = ("recall_at_1", "r_precision", "map_at_r", "mrr")
    found = functional.retrieval_metrics(a, b, query_ids=ids_a, target_ids=ids_b)
    return jnp.stack([found[name] for name in names])


OURS = {
    "image_to_text": of_ranks,
    "text_to_image": lambda a, b: of_ranks(b, a),
    "true_recall": true_recall,
    "labelled": labelled,
    "mutual_knn": lambda a, b: functional.mutual_knn(a, b, k=4),
    "cknna": lambda a, b: functional.cknna(a, b, k=5, eps=1e-6),
    "cknna_biased": lambda a, b: functional.cknna(a, b, k=5, eps=1e-6, debiased=False),
}


def test_every_case_of_the_file_is_compared():
    assert sorted(OURS) == sorted(GOLDEN.cases)


@pytest.mark.parametrize("wide", [True, False], ids=["f64", "f32"])
@pytest.mark.parametrize("case", OURS)
def test_agrees_with_the_original(case, wide):
    with jax.enable_x64(wide):
        arrays = GOLDEN.entries(case, "in") | GOLDEN.entries(case, "with")
        value = jax.jit(OURS[case])(**{name: jnp.asarray(x) for name, x in arrays.items()})
    expected = np.asarray(GOLDEN.arrays[f"{case}/value"])
    assert_close(value, expected, 1e-9 if wide else 1e-5, GOLDEN.source(case))
