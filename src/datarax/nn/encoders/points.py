"""Points along contours."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from datarax.nn.encoders.layers import DenseHead
from datarax.nn.linear import Linear

FREQUENCIES = (1.0, 2.0, 4.0, 8.0)


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
        self.head = DenseHead(2 * widths[-1] + 128, out_features, dropout=dropout, rngs=rngs)

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
