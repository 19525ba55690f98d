"""Rows of what pairs of modalities have in common, and the loops that they must equal."""

import jax.numpy as jnp
import numpy as np
from functional_case import Case, N

from datarax import functional

WEIGHTS = (0.5, 2.0, 1.5)


def average(losses, mask, ids):
    means = np.zeros(len(losses))
    for i, row in enumerate(losses):
        kept = [p for p in range(3) if mask is None or mask[i, p]]
        if kept:
            total = sum(WEIGHTS[p] * row[p] for p in kept)
            means[i] = total / sum(WEIGHTS[p] for p in kept)
    return means


def similarity(a, b, mask, ids, *, own):
    rows = [i for i in range(len(a)) if mask is None or mask[i]]
    found = [a[i] @ b[j] for i in rows for j in rows if (i == j) == own]
    return np.array(sum(found) / len(found) if found else 0.0)


def _similarity(name, place):
    return Case(
        name=name,
        run=lambda a, b, mask, ids: functional.mean_similarities(a, b, where=mask)[place],
        oracle=lambda a, b, mask, ids: similarity(a, b, mask, ids, own=place == 0),
        shapes=((N, 4), (N, 4)),
        kind="set",
        mask=(N,),
        spoiled=(0, 1),
    )


CASES = [
    Case(
        name="average_over_pairs",
        run=lambda x, mask, ids: functional.average_over_pairs(
            x, where=mask, weights=jnp.asarray(WEIGHTS)
        )[0],
        oracle=average,
        shapes=((N, 3),),
        kind="pointwise",
        mask=(N, 3),
        spoiled=(0,),
    ),
    _similarity("mean similarity of pairs", 0),
    _similarity("mean similarity of others", 1),
]
