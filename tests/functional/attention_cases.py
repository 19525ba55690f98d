"""Rows of attention."""

import functional_oracles as oracle
from functional_case import Case, N

from datarax import functional


def _attention(query, key, value, mask, ids):
    return functional.dot_product_attention(
        query, key, value, mask=None if mask is None else mask[..., None, None, :]
    )


CASES = [
    Case(
        name="dot_product_attention",
        run=_attention,
        oracle=oracle.attention,
        shapes=((N, 3, 2, 4), (N, 5, 2, 4), (N, 5, 2, 3)),
        kind="pointwise",
        mask=(N, 5),
        spoiled=(1, 2),
    ),
]
