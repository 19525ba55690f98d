"""Normalisation of features."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.checks import accumulation_dtype, check_floating


def layer_norm(
    x: Num[Array, "*batch d"],
    scale: Num[Array, "..."],
    bias: Num[Array, "..."],
    *,
    eps: float = 1e-6,
) -> Float[Array, "*batch d"]:
    r"""$\gamma (x - \bar x) / \sqrt{\mathrm{var}(x) + \epsilon} + \beta$, last axis, ddof 0.

    Args:
      x: features last.
      scale, bias: $\gamma$ and $\beta$.
      eps: added to the variance, positive, or a constant vector would give NaN; flax has 1e-6,
        torch 1e-5.

    Returns:
      The shape and dtype of `x`, computed in at least float32; $\beta$ for a constant vector.

    Raises:
      TypeError: if an array is not floating point.
      ValueError: if `scale` or `bias` does not have the width of `x`, or `eps` is not positive.

    Reference: Ba et al., 2016, arXiv:1607.06450, equation 4.

    Example:
      >>> layer_norm(jnp.array([1.0, 3.0]), jnp.ones(2), jnp.zeros(2)).round(3)
      Array([-1.,  1.], dtype=float32)
    """
    check_floating(x=x, scale=scale, bias=bias)
    if x.ndim == 0 or scale.shape != x.shape[-1:] or bias.shape != x.shape[-1:]:
        raise ValueError(
            f"scale and bias must have the width of x {x.shape}, got {scale.shape}, {bias.shape}"
        )
    if not eps > 0:
        raise ValueError(f"eps must be positive, got {eps}")
    wide = accumulation_dtype(x)
    centred = x.astype(wide)
    centred = centred - jnp.mean(centred, axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + eps)
    gamma = jnp.broadcast_to(scale.astype(wide), x.shape)
    return (centred * inverse * gamma + jnp.broadcast_to(bias.astype(wide), x.shape)).astype(
        x.dtype
    )


def rms_norm(
    x: Num[Array, "*batch d"], scale: Num[Array, " d"], *, eps: float = 1e-6
) -> Float[Array, "*batch d"]:
    r"""$\gamma x / \sqrt{\overline{x^2} + \epsilon}$ over the last axis.

    Args:
      x: features last.
      scale: the factor gamma.
      eps: added to the mean square; without it the derivative at 0 would not exist.

    Returns:
      The shape and dtype of `x`, computed in at least float32; 0 for a zero vector.

    Raises:
      TypeError: if an array is not floating point.
      ValueError: if `scale` does not have the width of `x`.

    Reference: Zhang and Sennrich, 2019, arXiv:1910.07467, equation 4.

    Example:
      >>> rms_norm(jnp.array([1.0, 1.0]), jnp.ones(2)).round(3)
      Array([1., 1.], dtype=float32)
    """
    check_floating(x=x, scale=scale)
    if x.ndim == 0 or scale.shape != x.shape[-1:]:
        raise ValueError(f"scale must have the width of x, got {scale.shape} for x {x.shape}")
    wide = accumulation_dtype(x)
    y = x.astype(wide)
    y = y * jax.lax.rsqrt(jnp.mean(y**2, axis=-1, keepdims=True) + eps)
    return (y * jnp.broadcast_to(scale.astype(wide), y.shape)).astype(x.dtype)
