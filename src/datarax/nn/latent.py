"""Fusion through a few latent vectors that read all modalities."""

from collections.abc import Sequence
from typing import Literal, get_args

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Num

from datarax.functional.masking import masked_mean
from datarax.nn.attention import CrossAttention
from datarax.nn.feed_forward import FeedForward
from datarax.nn.keys import split_keys
from datarax.nn.linear import Linear
from datarax.nn.normalization import LayerNorm
from datarax.nn.tokens import modality_tokens

Decode = Literal["mean", "queries"]


class LatentLayer(nnx.Module):
    r"""$y = x + \mathrm{attend}(\bar x, \bar c)$, then $y + \mathrm{ff}(\bar y)$.

    A bar is a layer norm (eps 1e-5); the feed-forward layer is a GEGLU.

    Args:
      features: width of the latents.
      context_features: width of what they attend to; `None`: themselves.
      num_heads, head_dim: of the attention.
      dropout: probability that an attention weight is dropped in a call with an `rng_key`.
      rngs: the stream `params` draws the kernels, [in, out].
    """

    def __init__(
        self,
        features: int,
        context_features: int | None = None,
        *,
        num_heads: int,
        head_dim: int,
        dropout: float | int = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        self.query_norm = LayerNorm(features, eps=1e-5)
        self.context_norm = (
            None if context_features is None else LayerNorm(context_features, eps=1e-5)
        )
        self.attention = CrossAttention(
            features,
            features if context_features is None else context_features,
            num_heads=num_heads,
            head_dim=head_dim,
            dropout=dropout,
            rngs=rngs,
        )
        self.norm = LayerNorm(features, eps=1e-5)
        self.feed_forward = FeedForward(features, activation="geglu", rngs=rngs)

    def __call__(
        self,
        latents: Array,
        context: Array | None = None,
        *,
        mask: Array | None = None,
        rng_key: Array | None = None,
    ) -> Array:
        """The latents [..., n, d] after they saw [..., s, e], or themselves."""
        normed = self.query_norm(latents)
        seen = normed
        if context is not None and self.context_norm is not None:
            seen = self.context_norm(context)
        latents = latents + self.attention(normed, seen, context_mask=mask, rng_key=rng_key)
        return latents + self.feed_forward(self.norm(latents))


class LatentFusion(nnx.Module):
    r"""Learned `latents` [n, d] read the tokens of all modalities, then process, then are decoded.

    A modality's tokens are mapped to a common width (`projections[m]`) and marked by a learned
    `type_embedding` [M, d]. `num_reads` times the latents attend to all of them at once and then
    `depth` times to themselves. A record's absent modality has no part in it.

    Args:
      in_features: the width of each modality.
      out_features: the width of the result.
      latent_features: the width d.
      num_latents: the number n.
      num_reads: how often the latents read (`reads`).
      depth: layers of self-attention after each reading (`processes`, num_reads * depth of them).
      num_heads, head_dim: of all attentions; `head_dim` `None` divides d by the number of heads.
      decode: `"mean"` of the latents, then norm and output layer: one vector; or `"queries"`:
        learned `output_queries` that attend to the latents, then the output layer.
      num_outputs: the number of output queries; only with `"queries"`.
      dropout: probability that an attention weight is dropped in a call with an `rng_key`.
      rngs: the stream `params` draws the parameters.

    Reference: Jaegle et al., 2022, arXiv:2107.14795, section 3; skipping modalities as in Hemker et
      al., 2024, arXiv:2311.09115 (which reads one modality after another).

    Example:
      >>> fuse = LatentFusion((4, 6), 3, latent_features=8, num_latents=2, num_heads=2,
      ...                     rngs=nnx.Rngs(0))
      >>> nnx.eval_shape(fuse, [jnp.ones((5, 4)), jnp.ones((7, 6))]).shape
      (3,)
    """

    def __init__(
        self,
        in_features: Sequence[int],
        out_features: int,
        *,
        latent_features: int = 256,
        num_latents: int = 32,
        num_reads: int = 1,
        depth: int = 2,
        num_heads: int = 8,
        head_dim: int | None = None,
        decode: Decode = "mean",
        num_outputs: int | None = None,
        dropout: float | int = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        d = latent_features
        _check_options(
            in_features,
            num_latents=num_latents,
            num_reads=num_reads,
            depth=depth,
            decode=decode,
            num_outputs=num_outputs,
        )
        if head_dim is None and (num_heads < 1 or d % num_heads):
            raise ValueError(f"num_heads {num_heads} does not divide {d}: give head_dim")
        head_dim = d // num_heads if head_dim is None else head_dim
        self.in_features, self.depth, self.decode = tuple(in_features), depth, decode
        draw = nnx.initializers.normal(0.02)
        self.projections = nnx.List([Linear(width, d, rngs=rngs) for width in in_features])
        self.type_embedding = nnx.Param(
            draw(rngs.params(), (len(self.in_features), d), jnp.float32)
        )
        self.latents = nnx.Param(
            nnx.initializers.normal(1.0)(rngs.params(), (num_latents, d), jnp.float32)
        )

        def attention() -> CrossAttention:
            return CrossAttention(
                d, d, num_heads=num_heads, head_dim=head_dim, dropout=dropout, rngs=rngs
            )

        def layer(context: int | None) -> LatentLayer:
            return LatentLayer(
                d, context, num_heads=num_heads, head_dim=head_dim, dropout=dropout, rngs=rngs
            )

        self.reads = nnx.List([layer(d) for _ in range(num_reads)])
        self.processes = nnx.List([layer(None) for _ in range(num_reads * depth)])
        self.norm = LayerNorm(d, eps=1e-5)
        self.single = num_outputs is None
        shape = (1 if num_outputs is None else num_outputs, d)
        mean = decode == "mean"
        self.output_queries = (
            None
            if mean
            else nnx.Param(nnx.initializers.normal(1.0)(rngs.params(), shape, jnp.float32))
        )
        self.query_norm = None if mean else LayerNorm(d, eps=1e-5)
        self.decoder = None if mean else attention()
        self.output = Linear(d, out_features, rngs=rngs)

    def __call__(
        self,
        tokens: Sequence[Num[Array, "..."]],
        *,
        masks: Sequence[Array | None] | None = None,
        rng_key: Array | None = None,
    ) -> Float[Array, "..."]:
        """Fuse [..., t_m, d_m] of each modality.

        Args:
          tokens: one array a modality, with equal leading axes and dtype.
          masks: bool [..., t_m] for each, or `None` for one of which all tokens are there; all
            False for an absent modality. Masked tokens may hold NaN.
          rng_key: draws the dropout; `None` turns it off.

        Returns:
          [..., out_features], or with `"queries"` [..., num_outputs, out_features] (the axis is
          left out where `num_outputs` is `None`), in the dtype of the tokens. Exactly 0, with
          gradient 0, where no token is left.

        Raises:
          TypeError: if tokens are not floating point or differ in dtype, or masks not boolean.
          ValueError: if numbers or shapes do not fit.
        """
        tokens, there = modality_tokens(tokens, masks, self.in_features)
        keys = split_keys(rng_key, len(self.reads) + len(self.processes) + 1)
        dtype = tokens[0].dtype
        types = self.type_embedding[...].astype(dtype)
        parts = [layer(x) for layer, x in zip(self.projections, tokens, strict=True)]
        parts = [x + jnp.broadcast_to(types[m], x.shape) for m, x in enumerate(parts)]
        context, mask = jnp.concatenate(parts, axis=-2), jnp.concatenate(there, axis=-1)
        latents = self.latents[...].astype(dtype)
        latents = jnp.broadcast_to(latents, (*mask.shape[:-1], *latents.shape))
        for i, read in enumerate(self.reads):
            latents = read(latents, context, mask=mask, rng_key=keys[i])
            for j in range(i * self.depth, (i + 1) * self.depth):
                latents = self.processes[j](latents, rng_key=keys[len(self.reads) + j])
        fused = self._decode(latents, keys[-1])
        some = jnp.any(mask, axis=-1)
        return jnp.where(some.reshape(*some.shape, *[1] * (fused.ndim - some.ndim)), fused, 0)

    def _decode(self, latents: Array, rng_key: Array | None) -> Array:
        if self.output_queries is None or self.decoder is None or self.query_norm is None:
            return self.output(self.norm(masked_mean(latents, axis=-2)))
        queries = self.output_queries[...].astype(latents.dtype)
        queries = jnp.broadcast_to(queries, (*latents.shape[:-2], *queries.shape))
        seen = self.decoder(self.query_norm(queries), self.norm(latents), rng_key=rng_key)
        decoded = self.output(seen)
        return decoded[..., 0, :] if self.single else decoded


def _check_options(
    in_features: Sequence[int],
    *,
    num_latents: int,
    num_reads: int,
    depth: int,
    decode: Decode,
    num_outputs: int | None,
) -> None:
    if len(in_features) == 0:
        raise ValueError("in_features must name at least one modality, got none")
    if min(num_latents, num_reads) < 1 or depth < 0:
        raise ValueError(
            "num_latents and num_reads must be positive and depth not negative, got "
            f"{num_latents}, {num_reads}, {depth}"
        )
    if decode not in get_args(Decode):
        raise ValueError(f"decode must be one of {list(get_args(Decode))}, got {decode!r}")
    if num_outputs is not None and (decode != "queries" or num_outputs < 1):
        raise ValueError(
            f"num_outputs must be positive and belongs to decode 'queries', got {num_outputs} "
            f"with {decode!r}"
        )
