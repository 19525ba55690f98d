"""The querying transformer of BLIP-2."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Num

from datarax.functional.attention.token_masks import TextAttention, query_text_mask
from datarax.functional.checks import check_floating
from datarax.nn.attention import CrossAttention
from datarax.nn.feed_forward import Activation, FeedForward
from datarax.nn.keys import split_keys
from datarax.nn.normalization import LayerNorm
from datarax.nn.tokens import keep_tokens, token_mask


class QFormerLayer(nnx.Module):
    r"""Queries and text share self-attention; queries alone attend to the context.

    Each has its own feed-forward layer. A norm follows every residual:
    $z = \mathrm{norm}(x + f(x))$.

    Args:
      features: width of queries and text.
      context_features: width of the context; `None`: a layer without cross-attention.
      num_heads: number of heads.
      head_dim: width of one head; `None`: `features` divided by `num_heads`.
      hidden_features: width between the feed-forward layers; `None`: four times `features`.
      activation: of the feed-forward layers; see `FeedForward`.
      norm_eps: of the layer norms; 1e-12 is BERT's.
      dropout: probability that an attention weight is dropped in a call with an `rng_key`.
      rngs: the stream `params` draws the kernels, [in, out].
    """

    def __init__(
        self,
        features: int,
        context_features: int | None,
        *,
        num_heads: int,
        head_dim: int | None = None,
        hidden_features: int | None = None,
        activation: Activation = "gelu",
        norm_eps: float = 1e-12,
        dropout: float | int = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        if head_dim is None and (num_heads < 1 or features % num_heads):
            raise ValueError(f"num_heads {num_heads} does not divide {features}: give head_dim")

        def attention(width: int) -> CrossAttention:
            return CrossAttention(
                features,
                width,
                num_heads=num_heads,
                head_dim=features // num_heads if head_dim is None else head_dim,
                dropout=dropout,
                rngs=rngs,
            )

        def feed_forward() -> FeedForward:
            return FeedForward(
                features, hidden_features=hidden_features, activation=activation, rngs=rngs
            )

        self.self_attention = attention(features)
        self.self_attention_norm = LayerNorm(features, eps=norm_eps)
        self.cross_attention = None if context_features is None else attention(context_features)
        self.cross_attention_norm = (
            None if context_features is None else LayerNorm(features, eps=norm_eps)
        )
        self.query_feed_forward = feed_forward()
        self.query_feed_forward_norm = LayerNorm(features, eps=norm_eps)
        self.text_feed_forward = feed_forward()
        self.text_feed_forward_norm = LayerNorm(features, eps=norm_eps)

    def __call__(
        self,
        queries: Array,
        text: Array,
        context: Array,
        *,
        query_mask: Array,
        text_mask: Array,
        context_mask: Array,
        sees: Array,
        rng_key: Array | None = None,
    ) -> tuple[Array, Array]:
        """Queries and text after the layer.

        Args:
          queries, text, context: [..., q, d], [..., t, d] (t may be 0) and [..., s, e].
          query_mask, text_mask, context_mask: bool [..., q], [..., t] and [..., s]. Masked tokens
            give exactly 0; those of the context may hold NaN.
          sees: bool [q + t, q + t], which of queries and text may see which.
          rng_key: draws the dropout; `None` turns it off.
        """
        first, second = split_keys(rng_key, 2)
        q = queries.shape[-2]
        x = jnp.concatenate([queries, text], axis=-2)
        there = jnp.concatenate([query_mask, text_mask], axis=-1)
        attended = self.self_attention(
            x,
            x,
            query_mask=there,
            context_mask=there,
            mask=sees,
            rng_key=first,
        )
        x = keep_tokens(self.self_attention_norm(x + attended), there)
        queries, text = x[..., :q, :], x[..., q:, :]
        if self.cross_attention is not None and self.cross_attention_norm is not None:
            attended = self.cross_attention(
                queries, context, query_mask=query_mask, context_mask=context_mask, rng_key=second
            )
            queries = self.cross_attention_norm(queries + attended)
            queries = keep_tokens(queries, query_mask)
        queries = self.query_feed_forward_norm(queries + self.query_feed_forward(queries))
        text = self.text_feed_forward_norm(text + self.text_feed_forward(text))
        return keep_tokens(queries, query_mask), keep_tokens(text, text_mask)


class QFormerBlock(nnx.Module):
    """Learned queries [n, d] that read the context, beside text that they may see: `QFormerLayer`s.

    Layer i has cross-attention where i is a multiple of `cross_attention_every`. Queries and text
    come as embeddings; neither is normalised before the first layer.

    Args:
      features: width d of queries and text.
      context_features: width of the context.
      num_queries: number of learned `queries`.
      num_layers: number of `layers`.
      cross_attention_every: one layer in so many has cross-attention, the first one always.
      text_attention: which of queries and text see which; see `functional.query_text_mask`.
      num_heads, head_dim, hidden_features, activation, norm_eps, dropout: of each layer.
      rngs: the stream `params` draws the parameters.

    Reference: Li et al., 2023, arXiv:2301.12597, section 3.1.

    Example:
      >>> block = QFormerBlock(8, 6, num_queries=2, num_layers=1, num_heads=2, rngs=nnx.Rngs(0))
      >>> nnx.eval_shape(block, jnp.ones((5, 6)))[0].shape
      (2, 8)
    """

    def __init__(
        self,
        features: int,
        context_features: int,
        *,
        num_queries: int = 32,
        num_layers: int = 2,
        cross_attention_every: int = 2,
        text_attention: TextAttention = "bidirectional",
        num_heads: int = 8,
        head_dim: int | None = None,
        hidden_features: int | None = None,
        activation: Activation = "gelu",
        norm_eps: float = 1e-12,
        dropout: float | int = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        if min(num_queries, num_layers, cross_attention_every) < 1:
            raise ValueError(
                "num_queries, num_layers and cross_attention_every must be positive, got "
                f"{num_queries}, {num_layers}, {cross_attention_every}"
            )
        query_text_mask(0, 0, text_attention=text_attention)
        self.features, self.context_features = features, context_features
        self.text_attention = text_attention
        draw = nnx.initializers.normal(0.02)
        self.queries = nnx.Param(draw(rngs.params(), (num_queries, features), jnp.float32))
        self.layers = nnx.List(
            [
                QFormerLayer(
                    features,
                    context_features if i % cross_attention_every == 0 else None,
                    num_heads=num_heads,
                    head_dim=head_dim,
                    hidden_features=hidden_features,
                    activation=activation,
                    norm_eps=norm_eps,
                    dropout=dropout,
                    rngs=rngs,
                )
                for i in range(num_layers)
            ]
        )

    def __call__(
        self,
        context: Num[Array, "..."],
        text: Num[Array, "..."] | None = None,
        *,
        context_mask: Array | None = None,
        text_mask: Array | None = None,
        rng_key: Array | None = None,
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Read the context.

        Args:
          context: [..., s, context_features].
          text: embeddings [..., t, features]; `None`: no text.
          context_mask, text_mask: bool [..., s] and [..., t]. A token with False is not seen and
            may hold NaN.
          rng_key: draws the dropout; `None` turns it off.

        Returns:
          The queries [..., n, d] and the text [..., t, d], in the dtype of `context`. Where no
          context is left the queries are exactly 0, with gradient 0, and the text does not see
          them; masked text is 0.

        Raises:
          TypeError: if tokens are not floating point or differ in dtype, or masks not boolean.
          ValueError: if the shapes do not fit, or `text_mask` comes without text.
        """
        if text is None:
            if text_mask is not None:
                raise ValueError("text_mask needs text, got None")
            text = jnp.zeros((*context.shape[:-2], 0, self.features), context.dtype)
        self._check(context, text)
        seen = token_mask(context_mask, context, name="context_mask")
        texts = token_mask(text_mask, text, name="text_mask")
        context, text = keep_tokens(context, seen), keep_tokens(text, texts)
        number = self.queries.shape[0]
        read = jnp.broadcast_to(jnp.any(seen, axis=-1, keepdims=True), (*seen.shape[:-1], number))
        queries = self.queries[...].astype(context.dtype)
        queries = keep_tokens(
            jnp.broadcast_to(queries, (*context.shape[:-2], *queries.shape)), read
        )
        sees = query_text_mask(number, text.shape[-2], text_attention=self.text_attention)
        for layer, key in zip(self.layers, split_keys(rng_key, len(self.layers)), strict=True):
            queries, text = layer(
                queries,
                text,
                context,
                query_mask=read,
                text_mask=texts,
                context_mask=seen,
                sees=sees,
                rng_key=key,
            )
        return queries, text

    def _check(self, context: Array, text: Array) -> None:
        check_floating(context=context, text=text)
        if context.dtype != text.dtype:
            raise TypeError(
                f"context and text must share a dtype, got {context.dtype}, {text.dtype}"
            )
        widths = (self.context_features, self.features)
        fits = context.ndim >= 2 and (context.shape[-1], text.shape[-1]) == widths
        if not fits or context.shape[:-2] != text.shape[:-2]:
            raise ValueError(
                f"expected context [..., s, {widths[0]}] and text [..., t, {widths[1]}] with equal "
                f"leading axes, got {context.shape} and {text.shape}"
            )
