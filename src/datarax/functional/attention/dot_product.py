"""Scaled dot-product attention that is exactly 0 where there is nothing to attend to."""

import math
from typing import Literal, overload

import jax
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
    dropout: float | int = 0.0,
    rng_key: Array | None = None,
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
    dropout: float | int = 0.0,
    rng_key: Array | None = None,
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
    dropout: float | int = 0.0,
    rng_key: Array | None = None,
    return_weights: bool = False,
) -> Float[Array, "..."] | tuple[Float[Array, "..."], Float[Array, "..."]]:
    r"""Attention of each query to the keys it may see, for each head:

    $o_t = \sum_s w_{ts} v_s$ with $w_t = \mathrm{softmax}_s(\gamma\, q_t \cdot k_s + \beta_{ts})$.

    Args:
      query: [..., t, h, d].
      key: [..., s, k, d], with the leading axes of `query`. The number of heads k divides h: query
        head i uses key head i // (h / k), as in torch, flax and Llama (x-transformers: i % k). With
        k = h this is multi-head attention, with k = 1 multi-query attention.
      value: [..., s, k, e].
      mask: bool, broadcastable to [..., h, t, s], True = may be seen.
      bias: added to the logits, broadcastable to [..., h, t, s]; -inf masks.
      scale: the factor gamma; 1/sqrt(d) for `None`.
      dropout: probability in [0, 1) that a weight is dropped; the others are divided by 1 minus it.
      rng_key: draws the dropout; `None` turns it off.
      return_weights: return the weights as well, as they are before dropout.

    Returns:
      The output [..., t, h, e] in the dtype of `value`; with `return_weights` also the weights
      [..., h, t, s] in at least float32. The softmax is computed in at least float32. A query that
      may see no key gets exactly 0, with gradient 0 (torch gives NaN, jax.nn the mean of the
      values). A key that no query may see, and a query that may see no key, can hold NaN: it
      reaches no value and no gradient. A key masked for some queries only must be finite.

    Raises:
      TypeError: if an input is not floating point or `mask` not boolean.
      ValueError: if the shapes do not fit together, or `dropout` is not in [0, 1).

    Reference: Vaswani et al., 2017, arXiv:1706.03762, equation 1; for k < h Ainslie et al., 2023,
      arXiv:2305.13245.

    Example:
      >>> x = jnp.ones((3, 1, 2))
      >>> mask = jnp.array([[True, True, False], [False] * 3, [True] * 3])
      >>> dot_product_attention(x, x, x, mask=mask)[:, 0, 0]
      Array([1., 0., 1.], dtype=float32)
    """
    _check(query, key, value, dropout)
    *leading, t, h, d = query.shape
    s, k = key.shape[-3:-1]
    shape, grouped = (*leading, h, t, s), (*leading, k, h // k, t, s)
    keep = broadcast_mask(mask, shape=shape, name="mask")
    if bias is not None:
        check_floating(bias=bias)
        bias = broadcast_array(bias, shape=shape, name="bias")
        keep = keep & (bias != -jnp.inf)
    if mask is not None or bias is not None:
        query, key, value = _without_unseen(query, key, value, keep.reshape(grouped))
    query, key = common_dtype(query, key)
    wide = accumulation_dtype(query, value)
    groups = query.reshape(*leading, t, k, h // k, d)
    logits = jnp.einsum("...tkgd,...skd->...kgts", groups, key, preferred_element_type=wide)
    logits = logits.reshape(shape) * (1 / math.sqrt(d) if scale is None else scale)
    if bias is not None:
        logits = logits + bias.astype(wide)
    weights = masked_softmax(logits, where=keep)
    used = weights
    if rng_key is not None and dropout > 0:
        kept = jax.random.bernoulli(rng_key, 1 - dropout, shape)
        used = jnp.where(kept, weights / (1 - dropout), 0)
    used = used.astype(value.dtype).reshape(grouped)
    output = jnp.einsum("...kgts,...ske->...tkge", used, value, preferred_element_type=wide)
    output = output.astype(value.dtype).reshape(*leading, t, h, value.shape[-1])
    return (output, weights) if return_weights else output


def _without_unseen(
    query: Array, key: Array, value: Array, keep: Array
) -> tuple[Array, Array, Array]:
    """Zeros for queries that see nothing and keys that nothing sees; `keep` [..., k, g, t, s]."""
    sees = jnp.any(keep, axis=-1)
    sees = jnp.moveaxis(sees.reshape(*keep.shape[:-4], -1, keep.shape[-2]), -1, -2)[..., None]
    seen = jnp.swapaxes(jnp.any(keep, axis=(-3, -2)), -1, -2)[..., None]
    return jnp.where(sees, query, 0), jnp.where(seen, key, 0), jnp.where(seen, value, 0)


def _check(query: Array, key: Array, value: Array, dropout: float) -> None:
    arrays = {"query": query, "key": key, "value": value}
    check_floating(**arrays)
    for name, x in arrays.items():
        if x.ndim < 3:
            raise ValueError(f"{name} must have shape [..., length, heads, width], got {x.shape}")
    listed = ", ".join(f"{name} {x.shape}" for name, x in arrays.items())
    leading = len({x.shape[:-3] for x in arrays.values()}) > 1
    if leading or key.shape[-3:-1] != value.shape[-3:-1] or query.shape[-1] != key.shape[-1]:
        raise ValueError(
            f"expected query [..., t, h, d], key [..., s, k, d], value [..., s, k, e], got {listed}"
        )
    heads, shared = query.shape[-2], key.shape[-2]
    if shared == 0 or heads % shared:
        raise ValueError(
            f"expected query heads in multiples of the {shared} heads of key and value, "
            f"got {heads}: {listed}"
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}")
