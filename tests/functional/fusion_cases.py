"""Rows of the fusions."""

from functools import partial

import functional_oracles as oracle
from functional_case import Case, N

from datarax import functional


def _stacked(name, function, reference, *, second):
    return Case(
        name=name,
        run=lambda x, y, mask, ids: function(x, y, presence=mask),
        oracle=reference,
        shapes=((N, 3, 4), second),
        kind="pointwise",
        mask=(N, 3),
        spoiled=(0, 1),
    )


def _concatenate(x, mask, ids):
    presence = None if mask is None else [mask[..., m] for m in range(3)]
    return functional.masked_concatenate([x[..., m, :] for m in range(3)], presence=presence)


CASES = [
    _stacked("weighted_sum", functional.weighted_sum, oracle.weighted_sum, second=(N, 3)),
    _stacked(
        "attention_weighted_sum",
        functional.attention_weighted_sum,
        oracle.attention_weighted_sum,
        second=(N, 3),
    ),
    _stacked(
        "gated_sum_softmax", functional.gated_sum, oracle.gated_sum("softmax"), second=(N, 3, 4)
    ),
    _stacked(
        "gated_sum_sigmoid",
        partial(functional.gated_sum, gate="sigmoid"),
        oracle.gated_sum("sigmoid"),
        second=(N, 3, 4),
    ),
    Case(
        name="masked_concatenate",
        run=_concatenate,
        oracle=oracle.concatenate,
        shapes=((N, 3, 4),),
        kind="pointwise",
        mask=(N, 3),
        spoiled=(0,),
    ),
]
