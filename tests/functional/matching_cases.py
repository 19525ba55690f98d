"""Row of binary matching, and the loop that it must equal."""

import math

import jax.numpy as jnp
import numpy as np
from functional_case import Case, N

from datarax import functional

TARGETS = (True, False, False)


def loop(logits, mask, ids):
    losses = np.zeros(len(logits))
    for i, row in enumerate(logits):
        kept = [k for k in range(len(row)) if mask is None or mask[i, k]]
        for k in kept:
            p = 1 / (1 + math.exp(-row[k]))
            losses[i] -= math.log(p if TARGETS[k] else 1 - p) / len(kept)
    return losses


CASES = [
    Case(
        name="matching_loss",
        run=lambda x, mask, ids: functional.matching_loss(
            x, targets=jnp.asarray(TARGETS), where=mask
        ),
        oracle=loop,
        shapes=((N, 3),),
        kind="pointwise",
        mask=(N, 3),
        spoiled=(0,),
    )
]
