"""Pooling by attention: a fixed number of vectors from any number of tokens."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Num

from datarax.functional.checks import check_floating
from datarax.nn.attention import CrossAttention
from datarax.nn.feed_forward import FeedForward
from datarax.nn.keys import split_keys
from datarax.nn.linear import Linear
from datarax.nn.normalization import LayerNorm
from datarax.nn.tokens import keep_tokens, token_mask


class AttentionPool(nnx.Module):
    r"""Learned queries `queries` [n, d] that attend to the tokens.

    With `depth` 1 it is the multi-head attention pooling of big_vision (`MapHead`), with more the
    Perceiver resampler of Flamingo (`ResamplerLayer` `depth` times, then a layer norm).

    Args:
      in_features: width of the tokens.
      num_queries: the number n of learned queries.
      depth: the number of layers.
      num_heads: number of heads.
      head_dim: width of one head; `None`: `out_features` divided by `num_heads`.
      out_features: the width d of queries and result; `None`: `in_features`.
      hidden_features: width between the feed-forward layers; `None`: four times d.
      num_times: with depth above 1, the number of learned `time_embedding` [num_times, in_features]
        that are added to the tokens [..., times, s, in_features]; `None`: none.
      dropout: probability that an attention weight is dropped in a call with an `rng_key`.
      rngs: the stream `params` draws the parameters.

    Reference: Lee et al., 2019, arXiv:1810.00825 (PMA), as in Zhai et al., 2022, arXiv:2106.04560;
      Alayrac et al., 2022, arXiv:2204.14198, figure 5.

    Example:
      >>> pool = AttentionPool(6, num_queries=2, num_heads=2, rngs=nnx.Rngs(0))
      >>> pool(jnp.ones((5, 6))).shape
      (2, 6)
    """

    def __init__(
        self,
        in_features: int,
        *,
        num_queries: int = 1,
        depth: int = 1,
        num_heads: int = 8,
        head_dim: int | None = None,
        out_features: int | None = None,
        hidden_features: int | None = None,
        num_times: int | None = None,
        dropout: float | int = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        if num_queries < 1 or depth < 1:
            raise ValueError(f"num_queries and depth must be positive, got {num_queries}, {depth}")
        if num_times is not None and (depth == 1 or num_times < 1):
            raise ValueError(
                f"num_times must be positive and needs depth above 1, got {num_times} "
                f"and depth {depth}"
            )
        self.in_features = in_features
        width = in_features if out_features is None else out_features
        if head_dim is None and (num_heads < 1 or width % num_heads):
            raise ValueError(f"num_heads {num_heads} does not divide {width}: give head_dim")
        head_dim = width // num_heads if head_dim is None else head_dim
        normal = nnx.initializers.normal
        self.queries = nnx.Param(
            normal(width**-0.5)(rngs.params(), (num_queries, width), jnp.float32)
        )
        self.time_embedding = (
            None
            if num_times is None
            else nnx.Param(normal(0.02)(rngs.params(), (num_times, in_features), jnp.float32))
        )
        layer = MapHead if depth == 1 else ResamplerLayer
        self.layers = nnx.List(
            [
                layer(
                    width,
                    in_features,
                    num_heads=num_heads,
                    head_dim=head_dim,
                    hidden_features=hidden_features,
                    dropout=dropout,
                    rngs=rngs,
                )
                for _ in range(depth)
            ]
        )
        self.norm = None if depth == 1 else LayerNorm(width, eps=1e-5)

    def __call__(
        self,
        tokens: Num[Array, "..."],
        *,
        mask: Array | None = None,
        rng_key: Array | None = None,
    ) -> Float[Array, "..."]:
        """Pool [..., s, in_features].

        Args:
          tokens: the tokens.
          mask: bool [..., s]; a token with False is not seen and may hold NaN.
          rng_key: draws the dropout; `None` turns it off.

        Returns:
          [..., n, d], or [..., d] for one query, in the dtype of `tokens`. Exactly 0, with gradient
          0, where no token is left.

        Raises:
          TypeError: if `tokens` is not floating point or `mask` not boolean.
          ValueError: if the shapes do not fit.
        """
        check_floating(tokens=tokens)
        if tokens.ndim < 2 or tokens.shape[-1] != self.in_features:
            raise ValueError(
                f"tokens must have shape [..., s, {self.in_features}], got {tokens.shape}"
            )
        there = token_mask(mask, tokens, name="mask")
        tokens = keep_tokens(tokens, there)
        if self.time_embedding is not None:
            tokens = keep_tokens(tokens + self._times(tokens), there)
        queries = self.queries[...].astype(tokens.dtype)
        pooled = jnp.broadcast_to(queries, (*tokens.shape[:-2], *queries.shape))
        for layer, key in zip(self.layers, split_keys(rng_key, len(self.layers)), strict=True):
            pooled = layer(pooled, tokens, there, rng_key=key)
        if self.norm is not None:
            pooled = self.norm(pooled)
        some = jnp.any(there, axis=-1, keepdims=True)
        pooled = keep_tokens(pooled, some)
        return pooled[..., 0, :] if queries.shape[0] == 1 else pooled

    def _times(self, tokens: Array) -> Array:
        assert self.time_embedding is not None
        embedding = self.time_embedding[...].astype(tokens.dtype)
        if tokens.ndim < 3 or tokens.shape[-3] > embedding.shape[0]:
            raise ValueError(
                f"tokens must have shape [..., times, s, {self.in_features}] with at most "
                f"{embedding.shape[0]} times, got {tokens.shape}"
            )
        return jnp.broadcast_to(embedding[: tokens.shape[-3], None], tokens.shape)


class MapHead(nnx.Module):
    r"""$z = \mathrm{attend}(q, x)$, then $z + \mathrm{ff}(\mathrm{norm}(z))$.

    As in big_vision: no residual around the attention, the approximate GELU, biases, eps 1e-6.

    Args:
      features, context_features: widths of queries and tokens.
      num_heads, head_dim, hidden_features, dropout: as of `AttentionPool`.
      rngs: the stream `params` draws the kernels.
    """

    def __init__(
        self,
        features: int,
        context_features: int,
        *,
        num_heads: int,
        head_dim: int,
        hidden_features: int | None = None,
        dropout: float | int = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        self.attention = CrossAttention(
            features,
            context_features,
            num_heads=num_heads,
            head_dim=head_dim,
            dropout=dropout,
            rngs=rngs,
        )
        self.norm = LayerNorm(features)
        self.feed_forward = FeedForward(
            features, hidden_features=hidden_features, activation="gelu_tanh", rngs=rngs
        )

    def __call__(
        self, queries: Array, tokens: Array, mask: Array, *, rng_key: Array | None = None
    ) -> Array:
        """The queries after the layer; see `AttentionPool`."""
        pooled = self.attention(queries, tokens, context_mask=mask, rng_key=rng_key)
        return pooled + self.feed_forward(self.norm(pooled))


class ResamplerLayer(nnx.Module):
    r"""$z = q + \mathrm{attend}(\bar q, [\bar x; \bar q])$, then $z + \mathrm{ff}(\bar z)$.

    A bar is a layer norm. As in Flamingo the queries see each other beside the tokens; no biases
    but those of the norms, the exact GELU, eps 1e-5. With another width of the tokens than of the
    queries these are mapped by `widen` before they are seen.

    Args:
      features, context_features: widths of queries and tokens.
      num_heads, head_dim, hidden_features, dropout: as of `AttentionPool`.
      rngs: the stream `params` draws the kernels.
    """

    def __init__(
        self,
        features: int,
        context_features: int,
        *,
        num_heads: int,
        head_dim: int,
        hidden_features: int | None = None,
        dropout: float | int = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        self.query_norm = LayerNorm(features, eps=1e-5)
        self.context_norm = LayerNorm(context_features, eps=1e-5)
        self.widen = (
            None
            if features == context_features
            else Linear(context_features, features, use_bias=False, rngs=rngs)
        )
        self.attention = CrossAttention(
            features,
            features,
            num_heads=num_heads,
            head_dim=head_dim,
            use_bias=False,
            dropout=dropout,
            rngs=rngs,
        )
        self.norm = LayerNorm(features, eps=1e-5)
        self.feed_forward = FeedForward(
            features, hidden_features=hidden_features, use_bias=False, rngs=rngs
        )

    def __call__(
        self, queries: Array, tokens: Array, mask: Array, *, rng_key: Array | None = None
    ) -> Array:
        """The queries after the layer; see `AttentionPool`."""
        normed, seen = self.query_norm(queries), self.context_norm(tokens)
        seen = seen if self.widen is None else self.widen(seen)
        there = jnp.concatenate([mask, jnp.ones(queries.shape[:-1], bool)], axis=-1)
        seen = jnp.concatenate([seen, normed], axis=-2)
        queries = queries + self.attention(normed, seen, context_mask=there, rng_key=rng_key)
        return queries + self.feed_forward(self.norm(queries))
