"""Scaled dot-product attention that is exactly 0 where there is nothing to attend to."""

import math
from typing import Literal, overload

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.checks import (
    accumulation_dtype,
    broadcast_array,
    broadcast_mask,
    check_floating,
    common_dtype,
)
from datarax.functional.masking import masked_softmax


@overload
def dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    scale: float | None = None,
    return_weights: Literal[False] = False,
) -> Array: ...


@overload
def dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    scale: float | None = None,
    return_weights: Literal[True],
) -> tuple[Array, Array]: ...


def dot_product_attention(
    query: Num[Array, "..."],
    key: Num[Array, "..."],
    value: Num[Array, "..."],
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    scale: float | None = None,
    return_weights: bool = False,
) -> Float[Array, "..."] | tuple[Float[Array, "..."], Float[Array, "..."]]:
    r"""Attention of each query to the keys it may see, for each head:

    $o_t = \sum_s w_{ts} v_s$ with $w_t = \mathrm{softmax}_s(\gamma\, q_t \cdot k_s + \beta_{ts})$.

    Args:
      query: [..., t, h, d].
      key: [..., s, h, d], with the leading axes and heads of `query`.
      value: [..., s, h, e].
      mask: bool, broadcastable to [..., h, t, s], True = may be seen.
      bias: added to the logits, broadcastable to [..., h, t, s]; -inf masks.
      scale: the factor gamma; 1/sqrt(d) for `None`.
      return_weights: return the weights as well.

    Returns:
      The output [..., t, h, e] in the dtype of `value`; with `return_weights` also the weights
      [..., h, t, s] in at least float32. The softmax is computed in at least float32. A query that
      may see no key gets exactly 0, with gradient 0 (torch gives NaN, jax.nn the mean of the
      values). A key that no query may see, and a query that may see no key, can hold NaN: it
      reaches no value and no gradient. A key masked for some queries only must be finite.

    Raises:
      TypeError: if an input is not floating point or `mask` not boolean.
      ValueError: if the shapes do not fit together.

    Reference: Vaswani et al., 2017, arXiv:1706.03762, equation 1.

    Example:
      >>> x = jnp.ones((3, 1, 2))
      >>> mask = jnp.array([[True, True, False], [False] * 3, [True] * 3])
      >>> dot_product_attention(x, x, x, mask=mask)[:, 0, 0]
      Array([1., 0., 1.], dtype=float32)
    """
    _check(query, key, value)
    *leading, t, h, d = query.shape
    shape = (*leading, h, t, key.shape[-3])
    keep = broadcast_mask(mask, shape=shape, name="mask")
    if mask is not None:
        sees = jnp.swapaxes(jnp.any(keep, axis=-1), -1, -2)[..., None]
        seen = jnp.swapaxes(jnp.any(keep, axis=-2), -1, -2)[..., None]
        query, key, value = (
            jnp.where(live, x, 0) for live, x in ((sees, query), (seen, key), (seen, value))
        )
    query, key = common_dtype(query, key)
    wide = accumulation_dtype(query, value)
    logits = jnp.einsum("...thd,...shd->...hts", query, key, preferred_element_type=wide)
    logits = logits * (1 / math.sqrt(d) if scale is None else scale)
    if bias is not None:
        logits = logits + broadcast_array(bias, shape=shape, name="bias").astype(wide)
    weights = masked_softmax(logits, where=keep)
    output = jnp.einsum(
        "...hts,...she->...the", weights.astype(value.dtype), value, preferred_element_type=wide
    ).astype(value.dtype)
    return (output, weights) if return_weights else output


def _check(query: Array, key: Array, value: Array) -> None:
    arrays = {"query": query, "key": key, "value": value}
    check_floating(**arrays)
    for name, x in arrays.items():
        if x.ndim < 3:
            raise ValueError(f"{name} must have shape [..., length, heads, width], got {x.shape}")
    leading = {(x.shape[:-3], x.shape[-2]) for x in arrays.values()}
    if len(leading) > 1 or key.shape[-3] != value.shape[-3] or query.shape[-1] != key.shape[-1]:
        listed = ", ".join(f"{name} {x.shape}" for name, x in arrays.items())
        raise ValueError(
            f"expected query [..., t, h, d], key [..., s, h, d], value [..., s, h, e], got {listed}"
        )
