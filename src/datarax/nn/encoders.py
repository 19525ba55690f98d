"""Small encoders, from raw fields to feature vectors: pictures, outlines and short texts.

Dropout is on in a call that gets a `rng_key`, and off without.
`encoder.set_attributes(dtype=jnp.bfloat16)` has it compute in bfloat16, its parameters float32.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from datarax.functional.masking import masked_mean
from datarax.nn.attention import CrossAttention
from datarax.nn.linear import Linear
from datarax.nn.ngrams import hash_ngrams, hash_words


class ImageEncoder(nnx.Module):
    """Convolutions of stride 2 with group norm, then a dense layer that keeps the places apart.

    Args:
      size: height and width of the pictures, divisible by 2 for each convolution.
      widths: channels of the convolutions, each divisible by 8.
      out_features: width of the result.
      dropout: rate before and after the dense layer.
      rngs: the stream `params` draws the kernels.

    Example:
      >>> encode = ImageEncoder(size=8, widths=(8,), out_features=4, rngs=nnx.Rngs(0))
      >>> jax.eval_shape(encode, jnp.zeros((3, 8, 8), jnp.uint8)).shape
      (3, 4)
    """

    def __init__(
        self,
        *,
        size: int = 32,
        widths: Sequence[int] = (32, 64, 128),
        out_features: int = 256,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        if size % 2 ** len(widths) or any(width % 8 for width in widths):
            raise ValueError(
                f"expected size divisible by {2 ** len(widths)} and widths by 8, "
                f"got {size} and {tuple(widths)}"
            )
        self.size = size
        ins = (1, *widths[:-1])
        self.convolutions = nnx.List(
            [
                nnx.Conv(i, o, kernel_size=(3, 3), strides=(2, 2), rngs=rngs)
                for i, o in zip(ins, widths, strict=True)
            ]
        )
        self.norms = nnx.List([nnx.GroupNorm(o, num_groups=8, rngs=rngs) for o in widths])
        places = (size // 2 ** len(widths)) ** 2
        self.head = _Head(places * widths[-1], out_features, dropout=dropout, rngs=rngs)

    def __call__(
        self, image: UInt8[Array, "n h w"], *, rng_key: PRNGKeyArray | None = None
    ) -> Float[Array, "n d"]:
        """Features of gray pictures; 255 is 1."""
        if image.shape[1:] != (self.size, self.size):
            raise ValueError(f"expected pictures [n, {self.size}, {self.size}], got {image.shape}")
        x = image[..., None].astype(jnp.float32) / 255
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = jax.nn.gelu(norm(convolution(x)))
        return self.head(x.reshape(x.shape[0], -1), rng_key=rng_key)


class PointEncoder(nnx.Module):
    """Points along contours: convolutions along the sequence beside a pooled map of each point.

    Args:
      in_features: columns of a point; the first two are coordinates, which are also given as
        sines and cosines of 1, 2, 4 and 8 half turns a unit.
      widths: channels of the convolutions; the first keeps the length, each other halves it.
      out_features: width of the result.
      dropout: rate before and after the last layer.
      rngs: the stream `params` draws the kernels.

    Example:
      >>> encode = PointEncoder(widths=(8, 8), out_features=4, rngs=nnx.Rngs(0))
      >>> jax.eval_shape(encode, jnp.zeros((3, 64, 3))).shape
      (3, 4)
    """

    def __init__(
        self,
        *,
        in_features: int = 3,
        widths: Sequence[int] = (64, 128, 128),
        out_features: int = 256,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        features = in_features + 4 * len(FREQUENCIES)
        ins = (features, *widths[:-1])
        self.convolutions = nnx.List(
            [
                nnx.Conv(i, o, kernel_size=(5,), strides=(1 if k == 0 else 2,), rngs=rngs)
                for k, (i, o) in enumerate(zip(ins, widths, strict=True))
            ]
        )
        self.norms = nnx.List([nnx.LayerNorm(o, rngs=rngs) for o in widths])
        self.hidden = Linear(features, 128, rngs=rngs)
        self.point = Linear(128, 128, rngs=rngs)
        self.head = _Head(2 * widths[-1] + 128, out_features, dropout=dropout, rngs=rngs)

    def __call__(
        self, points: Float[Array, "n p c"], *, rng_key: PRNGKeyArray | None = None
    ) -> Float[Array, "n d"]:
        """Features of sequences of points, of which any length will do."""
        frequencies = jnp.asarray(FREQUENCIES, points.dtype)[None, None, None, :]
        turns = jnp.pi * points[..., :2, None] * frequencies
        turns = turns.reshape(*points.shape[:2], -1)
        x = jnp.concatenate([points, jnp.sin(turns), jnp.cos(turns)], axis=-1)
        x = x.astype(self.convolutions[0].dtype or x.dtype)
        each = jnp.max(self.point(jax.nn.gelu(self.hidden(x))), axis=1)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = jax.nn.gelu(norm(convolution(x)))
        pooled = jnp.concatenate([jnp.mean(x, axis=1), jnp.max(x, axis=1), each], axis=-1)
        return self.head(pooled, rng_key=rng_key)


class TextEncoder(nnx.Module):
    r"""Words as sums of hashed pieces, $(e_{word} + \sum_g e_g) / \sqrt{1 + G}$, then attention.

    The pieces are the word and its runs of `ngrams` bytes (`nn.ngrams`), looked up in one table.
    The words, with a learned vector for their place, pass attention blocks; mean and maximum over
    the words give the result.

    Args:
      table_size: rows of the table.
      ngrams: lengths of the runs.
      max_words: later words are not read.
      width: of a word's vector.
      layers: attention blocks.
      out_features: width of the result.
      dropout: rate on the words' vectors.
      rngs: the stream `params` draws the tables and kernels.

    Example:
      >>> encode = TextEncoder(table_size=64, width=8, out_features=4, rngs=nnx.Rngs(0))
      >>> jax.eval_shape(encode, jnp.frombuffer(b"snowman", jnp.uint8)[None]).shape
      (1, 4)
    """

    def __init__(
        self,
        *,
        table_size: int = 8192,
        ngrams: Sequence[int] = (1, 2, 3),
        max_words: int = 12,
        width: int = 128,
        layers: int = 1,
        out_features: int = 256,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        self.ngrams = tuple(ngrams)
        self.max_words = max_words
        normal = nnx.initializers.normal
        self.table = nnx.Embed(table_size, width, embedding_init=normal(0.1), rngs=rngs)
        self.places = nnx.Param(normal(0.05)(rngs.params(), (max_words, width), jnp.float32))
        self.blocks = nnx.List([_Block(width, rngs=rngs) for _ in range(layers)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.output = Linear(2 * width, out_features, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)

    def __call__(
        self, text: UInt8[Array, "n t"], *, rng_key: PRNGKeyArray | None = None
    ) -> Float[Array, "n d"]:
        """Features of UTF-8 bytes padded with zeros; of a text without words, a constant."""
        x, exists = self.words(text)
        x = self.dropout(x, deterministic=rng_key is None, rngs=rng_key) + self.places[...][None]
        for block in self.blocks:
            x = block(x, exists)
        x = self.norm(x)
        mean = masked_mean(x, where=exists[..., None], axis=1)
        some = jnp.any(exists, axis=1)[:, None]
        largest = jnp.max(jnp.where(exists[..., None], x, -jnp.inf), axis=1)
        largest = jnp.where(some, largest, 0)
        return self.output(jnp.concatenate([mean, largest], axis=-1))

    def words(self, text: UInt8[Array, "n t"]) -> tuple[Array, Array]:
        """The sum of each word's pieces: [n, max_words, width], and which words there are."""
        size = jnp.uint32(self.table.num_embeddings)
        words, exists = hash_words(text, max_words=self.max_words)
        pieces, owner = hash_ngrams(text, sizes=self.ngrams)
        member = owner[:, None, :] == jnp.arange(self.max_words)[None, :, None]
        count = 1 + jnp.sum(member, axis=2, keepdims=True, dtype=jnp.float32)
        vectors = self._look_up(pieces % size)
        total = self._look_up(words % size) + jnp.einsum(
            "nwp,npd->nwd", member.astype(vectors.dtype), vectors
        )
        return jnp.where(exists[..., None], total / jnp.sqrt(count), 0), exists

    def _look_up(self, slots: Array) -> Array:
        return self.table(slots.astype(jnp.int32))


FREQUENCIES = (1.0, 2.0, 4.0, 8.0)


class _Head(nnx.Module):
    """Dropout, a dense layer with gelu and layer norm, dropout."""

    def __init__(
        self, in_features: int, out_features: int, *, dropout: float, rngs: nnx.Rngs
    ) -> None:
        self.dense = Linear(in_features, out_features, rngs=rngs)
        self.norm = nnx.LayerNorm(out_features, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, x: Array, *, rng_key: Array | None) -> Array:
        first, second = (None, None) if rng_key is None else tuple(jax.random.split(rng_key))
        x = self.dropout(x, deterministic=rng_key is None, rngs=first)
        x = self.norm(jax.nn.gelu(self.dense(x)))
        return self.dropout(x, deterministic=rng_key is None, rngs=second)


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
