"""Scaled dot-product attention that is exactly 0 where there is nothing to attend to."""

import math
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral
from typing import Literal, overload

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Num

from datarax.functional.attention.cudnn import cudnn_attention, fits_cudnn, local_cudnn
from datarax.functional.attention.query_blocks import (
    Context,
    Queries,
    Weighing,
    attend,
    attend_in_blocks,
    choose_chunk,
)
from datarax.functional.checks import (
    accumulation_dtype,
    broadcast_array,
    broadcast_mask,
    check_floating,
    common_dtype,
)


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
    chunk: int | None = None,
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
    chunk: int | None = None,
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
    chunk: int | None = None,
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
      rng_key: draws the dropout of each query by its place; `None` turns it off.
      chunk: at most so many queries at once, their weights computed again in the backward pass: the
        memory is chunk * s numbers a head, not t * s. `None`: as many as suit the shapes, or
        cuDNN where it is known to take them, which has no second derivative. At least t: all at
        once, which forward mode needs.
      return_weights: return the weights as well, as they are before dropout; all at once.

    Returns:
      The output [..., t, h, e] in the dtype of `value`; with `return_weights` also the weights
      [..., h, t, s] in at least float32. The softmax is computed in at least float32. A query that
      may see no key gets exactly 0, with gradient 0 (torch gives NaN, jax.nn the mean of the
      values). A key that no query may see, and a query that may see no key, can hold NaN: it
      reaches no value and no gradient. A key masked for some queries only must be finite.

    Raises:
      TypeError: if an input is not floating point, `mask` not boolean or `chunk` not whole.
      ValueError: if the shapes do not fit together, `dropout` is not in [0, 1), or `chunk` is not
        positive, or given with `return_weights`.

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
    keep, bias = _masks(mask, bias, shape=(*leading, h, t, s), heads=k)
    if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, Integral)):
        raise TypeError(f"chunk must be a whole number of queries, got {chunk!r}")
    if chunk is not None and (chunk < 1 or return_weights):
        raise ValueError(
            "chunk must be at least 1 query, and None with return_weights, which holds all of them "
            f"at once: got chunk={chunk}, return_weights={return_weights}"
        )
    weighing = Weighing(1 / math.sqrt(d) if scale is None else scale, dropout)
    if keep is not None:
        query, key, value = _without_unseen(query, key, value, keep)
    drawn = None if dropout == 0 else rng_key
    cudnn = local_cudnn() if drawn is None and chunk is None and not return_weights else None
    if fits_cudnn(query, key, value, cudnn=cudnn, masked=keep is not None, bias=bias):
        return lax.platform_dependent(
            query,
            key,
            value,
            keep,
            bias,
            cuda=partial(cudnn_attention, scale=weighing.scale),
            default=lambda q, k, v, keep, bias: _by_heads(q, k, v, _Options(keep, bias, weighing))[
                0
            ],
        )
    size = None if chunk is None else int(chunk)
    options = _Options(keep, bias, weighing, drawn, size, return_weights)
    output, weights = _by_heads(query, key, value, options)
    return output if weights is None else (output, weights.reshape(*leading, h, t, s))


@dataclass(frozen=True)
class _Options:
    """Keep and bias [..., k, g, t, s], and what `dot_product_attention` is told."""

    keep: Array | None
    bias: Array | None
    weighing: Weighing
    rng_key: Array | None = None
    chunk: int | None = None
    return_weights: bool = False


def _by_heads(
    query: Array, key: Array, value: Array, options: _Options
) -> tuple[Array, Array | None]:
    """The output [..., t, h, e], and the weights [..., k, g, t, s] if they are wanted."""
    *leading, t, h, d = query.shape
    s, k = key.shape[-3:-1]
    dtype = value.dtype
    query, key = common_dtype(query, key)
    weighing = options.weighing
    if query.dtype == accumulation_dtype(query, value):
        # Fewer numbers than the logits have; a narrow dtype would be rounded once more.
        query, weighing = query * weighing.scale, replace(weighing, scale=1.0)
    groups = jnp.moveaxis(query.reshape(*leading, t, k, h // k, d), -4, -2)
    places = jnp.arange(t, dtype=jnp.int32)[:, None]
    queries = Queries(groups, options.keep, options.bias, places)
    context = Context(jnp.moveaxis(key, -2, -3), jnp.moveaxis(value, -2, -3), options.rng_key)
    chunk = choose_chunk((*leading, h, t, s)) if options.chunk is None else options.chunk
    weights = None
    if chunk < t and not options.return_weights:
        output = attend_in_blocks(queries, context, weighing, chunk=chunk)
    else:
        output, weights = attend(queries, context, weighing)
    output = jnp.moveaxis(output.astype(dtype), -2, -4)
    output = output.reshape(*leading, t, h, value.shape[-1])
    return output, weights if options.return_weights else None


def _masks(
    mask: Array | None, bias: Array | None, *, shape: tuple[int, ...], heads: int
) -> tuple[Array | None, Array | None]:
    """What may be seen, and the bias, each [..., k, g, t, s] with 1 where it does not vary."""
    if mask is not None:
        broadcast_mask(mask, shape=shape, name="mask")
        mask = _grouped(mask, len(shape), heads)
    if bias is None:
        return mask, None
    check_floating(bias=bias)
    broadcast_array(bias, shape=shape, name="bias")
    bias = _grouped(bias, len(shape), heads)
    seen = bias != -jnp.inf
    return (seen if mask is None else mask & seen), bias


def _grouped(x: Array, rank: int, heads: int) -> Array:
    """The array with axes of size 1 in front, its axis of heads split into [k, g]."""
    x = x.reshape(*[1] * (rank - x.ndim), *x.shape)
    split = (heads, x.shape[-3] // heads) if x.shape[-3] > 1 else (1, 1)
    return x.reshape(*x.shape[:-3], *split, *x.shape[-2:])


def _without_unseen(
    query: Array, key: Array, value: Array, keep: Array
) -> tuple[Array, Array, Array]:
    """Zeros for queries that see nothing and keys that nothing sees; `keep` [..., k, g, t, s]."""
    sees = jnp.any(keep, axis=-1)
    *leading, k, g, t, _ = keep.shape
    sees = jnp.moveaxis(sees.reshape(*leading, k * g, t), -1, -2)[..., None]
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
