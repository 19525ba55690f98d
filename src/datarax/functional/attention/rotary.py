"""Rotary position embedding."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.checks import accumulation_dtype, check_floating


def rotary_embedding(
    x: Num[Array, "*batch t h d"], positions: Num[Array, "*places t"], *, base: float = 10000.0
) -> Float[Array, "*batch t h d"]:
    r"""The pairs of each head turned by angles that grow with the position $p$:

    $(x_{2i}, x_{2i+1}) \mapsto (x_{2i} \cos\theta_i - x_{2i+1} \sin\theta_i,\;
    x_{2i} \sin\theta_i + x_{2i+1} \cos\theta_i)$ with $\theta_i = p\, b^{-2i/d}$.

    The product of a query turned by p with a key turned by r depends on p - r alone. Pairs are
    neighbours ("interleaved", the paper and x-transformers); checkpoints in the manner of GPT-NeoX
    pair i with i + d/2 instead.

    Args:
      x: queries or keys, [..., t, h, d] with even d.
      positions: integers or real numbers in any unit (an index, seconds), finite. The leading axes
        are those of `x`, or there are none.
      base: the number b; the longest wave is $2 \pi b^{1 - 2/d}$ units.

    Returns:
      The shape and dtype of `x`. Angles, sines and cosines are computed in at least float32:
      bfloat16 cannot tell position 257 from 256.

    Raises:
      TypeError: if `x` is not floating point.
      ValueError: if d is odd, `base` is not above 1, or the shapes do not fit.

    Reference: Su et al., 2021, arXiv:2104.09864, equation 34.

    Example:
      >>> x = jnp.ones((2, 1, 2))
      >>> rotary_embedding(x, jnp.array([0.0, jnp.pi / 2]))[:, 0].round(3)
      Array([[ 1.,  1.],
             [-1.,  1.]], dtype=float32)
    """
    check_floating(x=x)
    if x.ndim < 3:
        raise ValueError(f"x must have shape [..., length, heads, width], got {x.shape}")
    width = x.shape[-1]
    if width % 2:
        raise ValueError(f"rotary positions turn pairs: head_dim must be even, got {width}")
    if base <= 1:
        raise ValueError(f"base must be above 1, got {base}")
    if positions.shape not in (x.shape[:-2], x.shape[-3:-2]):
        raise ValueError(
            f"positions must have shape {x.shape[:-2]} or {x.shape[-3:-2]}, got {positions.shape}"
        )
    wide = accumulation_dtype(x, positions)
    places = jnp.broadcast_to(positions.astype(wide), x.shape[:-2])
    frequencies = jnp.asarray(base, wide) ** (-jnp.arange(0, width, 2, dtype=wide) / width)
    angles = jnp.einsum("...t,i->...ti", places, frequencies)[..., None, :]
    pairs = x.astype(wide).reshape(*x.shape[:-1], width // 2, 2)
    shape = pairs.shape[:-1]
    cosines, sines = (jnp.broadcast_to(f(angles), shape) for f in (jnp.cos, jnp.sin))
    first, second = pairs[..., 0], pairs[..., 1]
    turned = jnp.stack(
        [first * cosines - second * sines, first * sines + second * cosines], axis=-1
    )
    return turned.reshape(x.shape).astype(x.dtype)
