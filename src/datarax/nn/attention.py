"""Attention from the tokens of one modality to those of another."""

from typing import Literal, overload

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Num

from datarax.functional.attention import dot_product_attention
from datarax.functional.checks import check_floating, check_mask, common_dtype
from datarax.nn.linear import Linear


class CrossAttention(nnx.Module):
    r"""Multi-head attention $[o_1; \dots; o_H] W_o$ of query tokens to context tokens.

    Args:
      query_features, context_features: widths of the two token sequences.
      num_heads: number of heads.
      head_dim: width of one head.
      out_features: width of the result; `None`: `query_features`.
      rngs: the stream `params` draws the kernels.

    Example:
      >>> attend = CrossAttention(4, 6, num_heads=2, head_dim=8, rngs=nnx.Rngs(0))
      >>> attend(jnp.ones((3, 4)), jnp.ones((5, 6))).shape
      (3, 4)
    """

    def __init__(
        self,
        query_features: int,
        context_features: int,
        *,
        num_heads: int,
        head_dim: int,
        out_features: int | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        if num_heads < 1 or head_dim < 1:
            raise ValueError(
                f"num_heads and head_dim must be positive, got {num_heads}, {head_dim}"
            )
        self.num_heads = num_heads
        self.head_dim = head_dim
        width = num_heads * head_dim
        out = query_features if out_features is None else out_features
        self.query = Linear(query_features, width, rngs=rngs)
        self.key = Linear(context_features, width, rngs=rngs)
        self.value = Linear(context_features, width, rngs=rngs)
        self.output = Linear(width, out, rngs=rngs)

    @overload
    def __call__(
        self,
        query: Array,
        context: Array,
        *,
        query_mask: Array | None = None,
        context_mask: Array | None = None,
        return_weights: Literal[False] = False,
    ) -> Array: ...

    @overload
    def __call__(
        self,
        query: Array,
        context: Array,
        *,
        query_mask: Array | None = None,
        context_mask: Array | None = None,
        return_weights: Literal[True],
    ) -> tuple[Array, Array]: ...

    def __call__(
        self,
        query: Num[Array, "..."],
        context: Num[Array, "..."],
        *,
        query_mask: Array | None = None,
        context_mask: Array | None = None,
        return_weights: bool = False,
    ) -> Float[Array, "..."] | tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Attend [..., t, query_features] to [..., s, context_features].

        Args:
          query, context: token sequences with equal leading axes.
          query_mask: bool [..., t]; a token with False gives exactly 0.
          context_mask: bool [..., s]; a token with False is not seen. With none left the result is
            exactly 0. Masked tokens may hold NaN.
          return_weights: return the weights [..., num_heads, t, s] in at least float32 as well.

        Returns:
          [..., t, out_features] in the dtype of `query` (the wider one, if they differ).
        """
        self._check(query, context)
        queries = _mask(query_mask, query, name="query_mask")
        contexts = _mask(context_mask, context, name="context_mask")
        query, context = common_dtype(
            jnp.where(queries[..., None], query, 0), jnp.where(contexts[..., None], context, 0)
        )
        output, weights = dot_product_attention(
            self._heads(self.query(query)),
            self._heads(self.key(context)),
            self._heads(self.value(context)),
            mask=queries[..., None, :, None] & contexts[..., None, None, :],
            return_weights=True,
        )
        attended = self.output(output.reshape(*output.shape[:-2], -1))
        # The bias of the output layer would make an empty row nonzero.
        live = queries & jnp.any(contexts, axis=-1, keepdims=True)
        attended = jnp.where(live[..., None], attended, 0)
        return (attended, weights) if return_weights else attended

    def _heads(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.num_heads, self.head_dim)

    def _check(self, query: Array, context: Array) -> None:
        check_floating(query=query, context=context)
        widths = (self.query.in_features, self.key.in_features)
        fits = query.ndim >= 2 and query.ndim == context.ndim
        fits = fits and (query.shape[-1], context.shape[-1]) == widths
        if not fits or query.shape[:-2] != context.shape[:-2]:
            raise ValueError(
                f"expected query [..., t, {widths[0]}] and context [..., s, {widths[1]}] with "
                f"equal leading axes, got {query.shape} and {context.shape}"
            )


def _mask(mask: Array | None, x: Array, *, name: str) -> Array:
    if mask is None:
        return jnp.ones(x.shape[:-1], bool)
    check_mask(mask, shape=x.shape[:-1], name=name)
    return mask
