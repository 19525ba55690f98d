"""What the encoders end with."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from datarax.functional.masking import masked_mean
from datarax.nn.attention import CrossAttention
from datarax.nn.linear import Linear


class DenseHead(nnx.Module):
    """Dropout, a dense layer with gelu and layer norm, dropout."""

    def __init__(
        self, in_features: int, out_features: int, *, dropout: float, rngs: nnx.Rngs
    ) -> None:
        self.dense = Linear(in_features, out_features, rngs=rngs)
        self.norm = nnx.LayerNorm(out_features, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, x: Array, *, rng_key: Array | None) -> Array:
        """Features `[n, d]` of `[n, c]`."""
        first, second = (None, None) if rng_key is None else tuple(jax.random.split(rng_key))
        x = self.dropout(x, deterministic=rng_key is None, rngs=first)
        x = self.norm(jax.nn.gelu(self.dense(x)))
        return self.dropout(x, deterministic=rng_key is None, rngs=second)


class SequencePool(nnx.Module):
    """A learned vector for each place, attention blocks, then mean and maximum of what is there."""

    def __init__(
        self,
        length: int,
        width: int,
        out_features: int,
        *,
        layers: int,
        dropout: float,
        rngs: nnx.Rngs,
    ) -> None:
        normal = nnx.initializers.normal(0.05)
        self.places = nnx.Param(normal(rngs.params(), (length, width), jnp.float32))
        self.blocks = nnx.List([_Block(width, rngs=rngs) for _ in range(layers)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.output = Linear(2 * width, out_features, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, x: Array, exists: Array, *, rng_key: Array | None) -> Array:
        """Features `[n, d]` of `[n, t, width]`, `t` at most `length`; `exists` is bool `[n, t]`."""
        x = self.dropout(x, deterministic=rng_key is None, rngs=rng_key)
        x = x + self.places[None, : x.shape[1]]
        for block in self.blocks:
            x = block(x, exists)
        x = self.norm(x)
        mean = masked_mean(x, where=exists[..., None], axis=1)
        some = jnp.any(exists, axis=1)[:, None]
        largest = jnp.max(jnp.where(exists[..., None], x, -jnp.inf), axis=1)
        largest = jnp.where(some, largest, 0)
        return self.output(jnp.concatenate([mean, largest], axis=-1))


class _Block(nnx.Module):
    """Pre-norm self-attention with 4 heads and a feed-forward layer of twice the width."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
        self.attention = CrossAttention(
            width, width, num_heads=4, head_dim=max(width // 4, 1), rngs=rngs
        )
        self.wide = Linear(width, 2 * width, rngs=rngs)
        self.narrow = Linear(2 * width, width, rngs=rngs)

    def __call__(self, x: Array, mask: Array) -> Array:
        tokens = self.norms[0](x)
        x = x + self.attention(tokens, tokens, context_mask=mask)
        return x + self.narrow(jax.nn.gelu(self.wide(self.norms[1](x))))
