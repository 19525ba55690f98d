"""Rows of masked reductions, norms and similarities."""

import functional_oracles as oracle
import numpy as np
from functional_case import Case, N, vectors

from datarax import functional


def _slots(function, reference):
    return Case(
        name=function.__name__,
        run=lambda x, mask, ids: function(x, where=mask),
        oracle=reference,
        shapes=((N, 5),),
        kind="pointwise",
        mask=(N, 5),
        spoiled=(0,),
    )


def _row_cosine(p, q):
    return float(p @ q) / np.sqrt(float(p @ p) * float(q @ q))


CASES = [
    _slots(functional.masked_mean, oracle.mean),
    _slots(functional.masked_softmax, oracle.softmax),
    _slots(functional.masked_logsumexp, oracle.logsumexp),
    vectors("safe_l2_norm", functional.safe_l2_norm, oracle.norm, inputs=1),
    vectors("safe_l2_normalize", functional.safe_l2_normalize, oracle.normalize, inputs=1),
    vectors("cosine_similarity", functional.cosine_similarity, oracle.cosine),
    vectors(
        "pairwise_dot_product",
        functional.pairwise_dot_product,
        oracle.pairwise_matrix(lambda p, q: float(p @ q)),
        kind="matrix",
    ),
    vectors(
        "pairwise_cosine_similarity",
        functional.pairwise_cosine_similarity,
        oracle.pairwise_matrix(_row_cosine),
        kind="matrix",
    ),
    vectors(
        "pairwise_squared_distance",
        functional.pairwise_squared_distance,
        oracle.pairwise_matrix(lambda p, q: float((p - q) @ (p - q))),
        kind="matrix",
    ),
]
