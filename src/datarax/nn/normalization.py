"""Normalisation that computes in the dtype of its input, its parameters float32."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Num

from datarax.functional.normalization import layer_norm, rms_norm


class LayerNorm(nnx.Module):
    """`functional.normalization.layer_norm` with learned `scale` [d], initially 1, and `bias` [d].

    Args:
      features: the width d.
      eps: added to the variance; flax has 1e-6, torch 1e-5.

    Example:
      >>> LayerNorm(2)(jnp.array([1.0, 3.0])).round(3)
      Array([-1.,  1.], dtype=float32)
    """

    def __init__(self, features: int, *, eps: float = 1e-6) -> None:
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(features, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))

    def __call__(self, x: Num[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        """The normalised vectors; of a constant vector, the bias."""
        return layer_norm(x, self.scale[...], self.bias[...], eps=self.eps)


class RMSNorm(nnx.Module):
    """`functional.rms_norm` with a learned `scale` [d], initially 1.

    Args:
      features: the width d.
      eps: added to the mean square.

    Example:
      >>> RMSNorm(2)(jnp.array([1.0, 1.0])).round(3)
      Array([1., 1.], dtype=float32)
    """

    def __init__(self, features: int, *, eps: float = 1e-6) -> None:
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(features, jnp.float32))

    def __call__(self, x: Num[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        """The normalised vectors; 0 of a zero vector."""
        return rms_norm(x, self.scale[...], eps=self.eps)
