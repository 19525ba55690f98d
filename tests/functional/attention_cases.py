"""Rows of attention."""

import attention_oracles
import functional_oracles as oracle
import jax.numpy as jnp
from functional_case import Case, N

from datarax import functional


def _attention(query, key, value, mask, ids):
    return functional.dot_product_attention(
        query, key, value, mask=None if mask is None else mask[..., None, None, :]
    )


def _rotary(x, positions, mask, ids):
    return functional.rotary_embedding(x, positions)


def _rms(x, mask, ids):
    return functional.rms_norm(x, jnp.asarray([0.5, 1.0, 2.0, -1.0], x.dtype), eps=1e-3)


def _co_attention(a, b, mask, ids):
    return functional.co_attention(a, b, value_a=a, value_b=b, mask_b=mask)[0]


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
    Case(
        name="dot_product_attention_grouped",
        run=_attention,
        oracle=attention_oracles.grouped_attention,
        shapes=((N, 2, 4, 4), (N, 3, 2, 4), (N, 3, 2, 3)),
        kind="pointwise",
        mask=(N, 3),
        spoiled=(1, 2),
    ),
    Case(
        name="rotary_embedding",
        run=_rotary,
        oracle=attention_oracles.rotary_rows,
        shapes=((N, 3, 2, 4), (N, 3)),
        kind="pointwise",
    ),
    Case(
        name="rms_norm",
        run=_rms,
        oracle=lambda x, mask, ids: attention_oracles.root_mean_square(
            x, [0.5, 1.0, 2.0, -1.0], eps=1e-3
        ),
        shapes=((N, 4),),
        kind="pointwise",
    ),
    Case(
        name="co_attention",
        run=_co_attention,
        oracle=attention_oracles.co_attention,
        shapes=((N, 3, 2, 4), (N, 2, 2, 4)),
        kind="pointwise",
        mask=(N, 2),
        spoiled=(1,),
    ),
]
