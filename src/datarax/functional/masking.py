"""Reductions and norms whose masked or degenerate inputs reach neither the value nor the gradient.

The trick throughout is the double `where`: the argument of a function that is singular at the
masked slot is replaced by a harmless one before the call, and the result is replaced after it. One
`where` after the call is not enough, since reverse mode multiplies its 0 with the inf or NaN of the
derivative.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.checks import accumulation_dtype, broadcast_mask, check_floating


def safe_l2_norm(
    x: Num[Array, "..."], *, axis: int = -1, eps: float = 1e-12
) -> Float[Array, "..."]:
    r"""Euclidean norm $\sqrt{\sum_k x_k^2}$ with gradient 0 at the zero vector.

    Args:
      x: vectors along `axis`.
      axis: the axis that is reduced.
      eps: a vector whose entries are all at most `eps` in magnitude counts as zero.

    Returns:
      Norms, `axis` removed, at least float32, in [0, inf). Neither large nor small entries
      overflow: each vector is divided by its largest magnitude first.

    Raises:
      TypeError: if `x` is not floating point.

    Example:
      >>> safe_l2_norm(jnp.array([3.0, 4.0]))
      Array(5., dtype=float32)
      >>> jax.grad(safe_l2_norm)(jnp.zeros(2))
      Array([0., 0.], dtype=float32)
    """
    check_floating(x=x)
    zero, peak, scaled = _divided_by_peak(x, axis=axis, eps=eps)
    norm = peak * jnp.sqrt(jnp.sum(scaled**2, axis=axis, keepdims=True))
    return jnp.squeeze(jnp.where(zero, 0, norm), axis=axis)


def safe_l2_normalize(
    x: Num[Array, "..."], *, axis: int = -1, eps: float = 1e-12
) -> Float[Array, "..."]:
    r"""Unit vectors $x / \lVert x \rVert_2$; a zero vector stays 0 and its gradient is 0.

    Args:
      x: vectors along `axis`.
      axis: the axis that holds a vector.
      eps: a vector whose entries are all at most `eps` in magnitude counts as zero.

    Returns:
      The shape and dtype of `x`; the norm is accumulated in at least float32. NaN and inf in a
      vector make that vector NaN.

    Raises:
      TypeError: if `x` is not floating point.

    Example:
      >>> safe_l2_normalize(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
      Array([[0.6, 0.8],
             [0. , 0. ]], dtype=float32)
    """
    check_floating(x=x)
    zero, _, scaled = _divided_by_peak(x, axis=axis, eps=eps)
    norm = jnp.sqrt(jnp.sum(scaled**2, axis=axis, keepdims=True))
    return jnp.where(zero, 0, scaled / norm).astype(x.dtype)


def masked_mean(
    x: Num[Array, "..."], *, where: Array | None = None, axis: int = -1
) -> Float[Array, "..."]:
    r"""Mean over the kept slots, $\sum_k m_k x_k / \sum_k m_k$; 0 where no slot is kept.

    Args:
      x: values; masked ones may be NaN or inf.
      where: bool, broadcastable to `x`, True = keep; `None` keeps all.
      axis: the axis that is reduced.

    Returns:
      Means, `axis` removed, in the dtype of `x`, accumulated in at least float32.

    Raises:
      TypeError: if `x` is not floating point or `where` not boolean.
      ValueError: if `where` does not broadcast to `x`.

    Example:
      >>> x = jnp.array([1.0, 3.0, jnp.nan])
      >>> masked_mean(x, where=jnp.array([True, True, False]))
      Array(2., dtype=float32)
    """
    check_floating(x=x)
    keep = broadcast_mask(where, shape=x.shape, name="where")
    wide = accumulation_dtype(x)
    total = jnp.sum(jnp.where(keep, x.astype(wide), 0), axis=axis)
    count = jnp.sum(keep, axis=axis, dtype=wide)
    return (total / jnp.maximum(count, 1)).astype(x.dtype)


def masked_softmax(
    x: Num[Array, "..."], *, where: Array | None = None, axis: int = -1
) -> Float[Array, "..."]:
    r"""Softmax over the kept slots, $m_k e^{x_k} / \sum_l m_l e^{x_l}$; 0 where none is kept.

    Args:
      x: logits; masked ones may be NaN or inf. A logit of -inf counts as masked.
      where: bool, broadcastable to `x`, True = keep; `None` keeps all.
      axis: the axis that sums to 1.

    Returns:
      Weights in [0, 1], the shape and dtype of `x`, computed in at least float32. Masked slots
      are exactly 0, and so is their gradient.

    Raises:
      TypeError: if `x` is not floating point or `where` not boolean.
      ValueError: if `where` does not broadcast to `x`.

    Example:
      >>> masked_softmax(jnp.array([1.0, 1.0, jnp.nan]), where=jnp.array([True, True, False]))
      Array([0.5, 0.5, 0. ], dtype=float32)
    """
    check_floating(x=x)
    keep = broadcast_mask(where, shape=x.shape, name="where") & (x != -jnp.inf)
    exponentials, _ = _exponentials(x, keep, axis=axis)
    total = jnp.sum(exponentials, axis=axis, keepdims=True)
    return (exponentials / jnp.where(total == 0, 1, total)).astype(x.dtype)


def masked_logsumexp(
    x: Num[Array, "..."], *, where: Array | None = None, axis: int = -1
) -> Float[Array, "..."]:
    r"""$\log \sum_k m_k e^{x_k}$ over the kept slots; 0 (not -inf) where none is kept.

    Args:
      x: logits; masked ones may be NaN or inf.
      where: bool, broadcastable to `x`, True = keep; `None` keeps all.
      axis: the axis that is reduced.

    Returns:
      `axis` removed, in the dtype of `x`, computed in at least float32; never below the largest
      kept logit. The gradient is the masked softmax, exactly 0 at masked slots.

    Raises:
      TypeError: if `x` is not floating point or `where` not boolean.
      ValueError: if `where` does not broadcast to `x`.

    Example:
      >>> masked_logsumexp(jnp.array([5.0, jnp.nan]), where=jnp.array([True, False]))
      Array(5., dtype=float32)
    """
    check_floating(x=x)
    keep = broadcast_mask(where, shape=x.shape, name="where")
    exponentials, peak = _exponentials(x, keep, axis=axis)
    empty = ~jnp.any(keep, axis=axis)
    total = jnp.where(empty, 1, jnp.sum(exponentials, axis=axis))
    return (jnp.squeeze(peak, axis=axis) + jnp.log(total)).astype(x.dtype)


def _divided_by_peak(x: Array, *, axis: int, eps: float) -> tuple[Array, Array, Array]:
    """Which vectors are zero, the largest magnitude of each (1 for zero), and their quotient."""
    wide = x.astype(accumulation_dtype(x))
    # Constant in the derivative: x / |x| does not depend on it, and |x| = peak * |x / peak|.
    peak = jax.lax.stop_gradient(jnp.max(jnp.abs(wide), axis=axis, keepdims=True, initial=0))
    zero = peak <= eps  # not `~(peak > eps)`, which would turn NaN into a zero vector
    peak = jnp.where(zero, 1, peak)
    return zero, peak, jnp.where(zero, 1, wide) / peak


def _exponentials(x: Array, keep: Array, *, axis: int) -> tuple[Array, Array]:
    """exp(x - peak) at kept slots and 0 elsewhere, and the peak (0 where it is not finite)."""
    wide = x.astype(accumulation_dtype(x))
    peak = jnp.max(wide, axis=axis, keepdims=True, where=keep, initial=-jnp.inf)
    peak = jax.lax.stop_gradient(jnp.where(jnp.isneginf(peak), 0, peak))
    # The inner where: exp of a masked slot may be inf, and its derivative times 0 is NaN.
    shifted = jnp.where(keep, wide - peak, 0)
    return jnp.where(keep, jnp.exp(shifted), 0), peak
