"""The scale and the bias of logits: where a bias starts, and a learned scale within bounds."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.checks import accumulation_dtype, check_floating


def sigmoid_bias_init(n: int) -> float:
    r"""The bias at which $\sigma(c) = 1/n$, the share of positives: $\log\frac{p}{1-p}$, $p = 1/n$.

    It equals $-\log(n - 1)$. With it, similarities near 0 start at the loss of the prior.

    Args:
      n: batch size over which the loss runs, at least 2.

    Returns:
      The bias, in (-inf, 0]; SigLIP's constant -10 is that of a batch of 22,027.

    Raises:
      ValueError: if `n < 2`.

    Reference: Zhai et al., 2023, arXiv:2303.15343, section 3.2 (the reason for a bias).

    Example:
      >>> round(sigmoid_bias_init(1024), 4)
      -6.9305
    """
    if n < 2:
        raise ValueError(f"n must be at least 2 for a prior of 1/n, got {n}")
    return -math.log(n - 1)


def clamped_exp(log_scale: Num[Array, ""], *, minimum: float, maximum: float) -> Float[Array, ""]:
    r"""The logit scale $\mathrm{clip}(e^{\theta}, s_{min}, s_{max})$ of a learned logarithm.

    At or beyond a bound a gradient passes only if a descent step along it leads back inside. The
    derivative of a plain clip is 0 there, which would hold a parameter that overshot for good.

    Args:
      log_scale: the parameter, a scalar.
      minimum, maximum: bounds of the scale, `0 < minimum <= maximum`.

    Returns:
      The scale, at least float32. Only reverse mode is defined.

    Raises:
      TypeError: if `log_scale` is not floating point.
      ValueError: if the bounds are not ordered and positive.

    Example:
      >>> clamped_exp(jnp.array(9.0), minimum=1.0, maximum=100.0)
      Array(100., dtype=float32)
    """
    check_floating(log_scale=log_scale)
    if not 0 < minimum <= maximum:
        raise ValueError(f"expected 0 < minimum <= maximum, got {minimum} and {maximum}")
    wide = log_scale.astype(accumulation_dtype(log_scale))
    return _clamped_exp(wide, minimum, maximum)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _clamped_exp(x: Array, low: float, high: float) -> Array:
    return jnp.clip(jnp.exp(x), low, high)


def _clamped_exp_forward(x: Array, low: float, high: float) -> tuple[Array, Array]:
    return _clamped_exp(x, low, high), jnp.exp(x)


def _clamped_exp_backward(low: float, high: float, free: Array, cotangent: Array) -> tuple[Array]:
    outward = ((free >= high) & (cotangent < 0)) | ((free <= low) & (cotangent > 0))
    return (jnp.where(outward, 0, cotangent * jnp.clip(free, low, high)),)


_clamped_exp.defvjp(_clamped_exp_forward, _clamped_exp_backward)
