"""Arrays of numbers."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Num, PRNGKeyArray

from datarax.nn.encoders.layers import DenseHead, SequencePool
from datarax.nn.linear import Linear


class SequenceEncoder(nnx.Module):
    """Rows of numbers in an order, such as frames or patch features: attention and pooling.

    Args:
      length: of the sequences.
      in_features: numbers in a row, normalised to mean 0 and variance 1.
      width: of a row's vector.
      layers: attention blocks.
      out_features: width of the result.
      dropout: rate on the rows' vectors.
      rngs: the stream `params` draws the kernels.

    Example:
      >>> encode = SequenceEncoder(length=5, in_features=3, width=8, rngs=nnx.Rngs(0))
      >>> jax.eval_shape(encode, jnp.zeros((2, 5, 3))).shape
      (2, 256)
    """

    def __init__(
        self,
        *,
        length: int,
        in_features: int,
        width: int = 128,
        layers: int = 1,
        out_features: int = 256,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        self.norm = nnx.LayerNorm(in_features, rngs=rngs)
        self.entry = Linear(in_features, width, rngs=rngs)
        self.pool = SequencePool(
            length, width, out_features, layers=layers, dropout=dropout, rngs=rngs
        )

    def __call__(
        self, rows: Num[Array, "n t c"], *, rng_key: PRNGKeyArray | None = None
    ) -> Float[Array, "n d"]:
        """Features of sequences."""
        x = self.entry(self.norm(rows.astype(jnp.float32)))
        return self.pool(x, jnp.ones(rows.shape[:2], bool), rng_key=rng_key)


class VectorEncoder(nnx.Module):
    """Arrays without an order of their own, such as the embeddings of another model.

    Args:
      in_features: numbers in an array, all axes together, normalised to mean 0 and variance 1.
      out_features: width of the result.
      dropout: rate before and after the last layer.
      rngs: the stream `params` draws the kernels.

    Example:
      >>> encode = VectorEncoder(in_features=6, out_features=4, rngs=nnx.Rngs(0))
      >>> jax.eval_shape(encode, jnp.zeros((5, 2, 3))).shape
      (5, 4)
    """

    def __init__(
        self,
        *,
        in_features: int,
        out_features: int = 256,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        self.norm = nnx.LayerNorm(in_features, rngs=rngs)
        self.entry = Linear(in_features, out_features, rngs=rngs)
        self.head = DenseHead(out_features, out_features, dropout=dropout, rngs=rngs)

    def __call__(
        self, arrays: Num[Array, "n ..."], *, rng_key: PRNGKeyArray | None = None
    ) -> Float[Array, "n d"]:
        """Features of arrays, laid flat."""
        flat = arrays.reshape(arrays.shape[0], -1).astype(jnp.float32)
        return self.head(jax.nn.gelu(self.entry(self.norm(flat))), rng_key=rng_key)
