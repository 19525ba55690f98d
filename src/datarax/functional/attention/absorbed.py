"""Attention to tokens as they are: queries and output absorb their projections."""

import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.attention.dot_product import dot_product_attention
from datarax.functional.checks import accumulation_dtype, check_floating


def absorbs(
    num_queries: int,
    num_tokens: int,
    *,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    context_features: int,
) -> bool:
    r"""Whether `absorbed_attention` takes fewer multiplications than projecting every token.

    With t queries, s tokens of width m, h heads and k key heads of width d:
    $h t s m + h t d m < s m k d + h t s d$.

    Example:
      >>> sizes = dict(num_heads=8, num_kv_heads=8, head_dim=64, context_features=512)
      >>> [absorbs(t, 2048, **sizes) for t in (8, 32, 64, 256)]
      [True, True, True, False]
    """
    rows = num_heads * num_queries
    absorbed = rows * context_features * (num_tokens + head_dim)
    projected = num_tokens * head_dim * (context_features * num_kv_heads + rows)
    return absorbed < projected


def absorbed_attention(
    query: Num[Array, "*batch t h d"],
    context: Num[Array, "*batch s m"],
    *,
    key_kernel: Float[Array, "m k d"],
    value_kernel: Float[Array, "m k e"],
    value_bias: Float[Array, "k e"] | None = None,
    mask: Array | None = None,
    bias: Array | None = None,
    dropout: float | int = 0.0,
    rng_key: Array | None = None,
    return_weights: bool = False,
) -> Float[Array, "*batch t h e"] | tuple[Float[Array, "*batch t h e"], Array]:
    r"""`dot_product_attention` to keys $x_s K$ and values $x_s V + c$ that are never formed:

    $o_t = \big(\sum_s w_{ts} x_s\big) V + c \sum_s w_{ts}$ with
    $w_t = \mathrm{softmax}_s(\gamma\, (q_t K^\top) \cdot x_s + \beta_{ts})$.

    A bias of the keys adds the same number to all logits of a query, and has no part in it.

    Args:
      query: the queries of h heads; head i belongs to key head i // (h / k).
      context: the tokens x.
      key_kernel, value_kernel: K and V of each key head.
      value_bias: the vector c of each key head; `None`: 0.
      mask, bias, dropout, rng_key, return_weights: see `dot_product_attention`; gamma is 1/sqrt(d).

    Returns:
      As `dot_product_attention`, in the dtype of `context`.

    Raises:
      TypeError: if the inputs are not floating point or `mask` not boolean.
      ValueError: if the shapes do not fit.

    Reference: DeepSeek-AI, 2024, arXiv:2405.04434, section 2.1.2 (the absorption of the
      projections).

    Example:
      >>> x, kernel = jnp.ones((3, 2)), jnp.ones((2, 1, 4))
      >>> absorbed_attention(
      ...     jnp.ones((1, 1, 4)), x, key_kernel=kernel, value_kernel=kernel
      ... )[0, 0]
      Array([2., 2., 2., 2.], dtype=float32)
    """
    check_floating(query=query, context=context)
    *leading, t, h, d = query.shape
    k = key_kernel.shape[-2]
    if k == 0 or h % k:
        raise ValueError(f"expected query heads in multiples of the {k} of key_kernel, got {h}")
    wide = accumulation_dtype(query, context)
    kernels = [x.astype(context.dtype) for x in (key_kernel, value_kernel)]
    groups = query.astype(context.dtype).reshape(*leading, t, k, h // k, d)
    widened = jnp.einsum("...tkgd,mkd->...tkgm", groups, kernels[0], preferred_element_type=wide)
    widened = widened.astype(context.dtype).reshape(*leading, t, h, -1)
    tokens = values = context[..., None, :]
    drops = value_bias is not None and rng_key is not None and dropout > 0
    if drops:
        # A column of ones: its mean is what the dropout left of the weights.
        values = jnp.concatenate([tokens, jnp.ones_like(tokens[..., :1])], axis=-1)
    options: dict[str, Any] = {"mask": mask, "bias": bias, "dropout": dropout, "rng_key": rng_key}
    scale = 1 / math.sqrt(d)
    if return_weights:
        mean, weights = dot_product_attention(
            widened, tokens, values, scale=scale, **options, return_weights=True
        )
    else:
        mean = dot_product_attention(widened, tokens, values, scale=scale, **options)
        weights = None
    total = mean[..., -1:] if drops else _seeing(mask, bias, (*leading, t, h))
    groups = mean[..., : context.shape[-1]].reshape(*leading, t, k, h // k, -1)
    output = jnp.einsum("...tkgm,mke->...tkge", groups, kernels[1], preferred_element_type=wide)
    if value_bias is not None:
        added = jnp.broadcast_to(value_bias.astype(wide)[:, None], output.shape)
        output = output + added * total.astype(wide).reshape(*output.shape[:-1], 1)
    output = output.astype(context.dtype).reshape(*leading, t, h, -1)
    return output if weights is None else (output, weights)


def _seeing(mask: Array | None, bias: Array | None, shape: tuple[int, ...]) -> Array:
    """1 for a query [..., t, h, 1] that sees something, else 0: the sum of its weights."""
    heads = (*shape[:-2], shape[-1], shape[-2])
    keep = jnp.ones((1, 1), bool) if mask is None else jnp.atleast_2d(mask)
    if bias is not None:
        seen = jnp.atleast_2d(bias) != -jnp.inf
        rank = max(keep.ndim, seen.ndim)
        keep, seen = (x.reshape(*[1] * (rank - x.ndim), *x.shape) for x in (keep, seen))
        keep = keep & seen
    sees = jnp.any(keep, axis=-1)
    return jnp.swapaxes(jnp.broadcast_to(sees, heads), -1, -2)[..., None]
