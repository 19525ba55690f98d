"""Texts, as bytes or as tokens."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from datarax.nn.encoders.layers import SequencePool
from datarax.nn.ngrams import hash_ngrams, hash_words


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
      >>> import jax
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
        self.pool = SequencePool(
            max_words, width, out_features, layers=layers, dropout=dropout, rngs=rngs
        )

    def __call__(
        self, text: UInt8[Array, "n t"], *, rng_key: PRNGKeyArray | None = None
    ) -> Float[Array, "n d"]:
        """Features of UTF-8 bytes padded with zeros; of a text without words, a constant."""
        x, exists = self.words(text)
        return self.pool(x, exists, rng_key=rng_key)

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


class TokenEncoder(nnx.Module):
    """Token ids, looked up in one table (modulo its size), then attention and pooling.

    Args:
      length: of the sequences.
      table_size: rows of the table; ids beyond it share rows.
      width: of a token's vector.
      layers: attention blocks.
      out_features: width of the result.
      dropout: rate on the tokens' vectors.
      rngs: the stream `params` draws the table and kernels.

    Example:
      >>> import jax
      >>> encode = TokenEncoder(length=5, table_size=64, width=8, out_features=4, rngs=nnx.Rngs(0))
      >>> jax.eval_shape(encode, jnp.zeros((3, 5), jnp.int32)).shape
      (3, 4)
    """

    def __init__(
        self,
        *,
        length: int,
        table_size: int = 32768,
        width: int = 128,
        layers: int = 1,
        out_features: int = 256,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        normal = nnx.initializers.normal(0.1)
        self.table = nnx.Embed(table_size, width, embedding_init=normal, rngs=rngs)
        self.pool = SequencePool(
            length, width, out_features, layers=layers, dropout=dropout, rngs=rngs
        )

    def __call__(
        self,
        tokens: Int[Array, "n t"],
        mask: Bool[Array, "n t"] | None = None,
        *,
        rng_key: PRNGKeyArray | None = None,
    ) -> Float[Array, "n d"]:
        """Features of the tokens that `mask` keeps; of a row without any, a constant."""
        there = jnp.ones(tokens.shape, bool) if mask is None else mask
        return self.pool(self.table(tokens % self.table.num_embeddings), there, rng_key=rng_key)
