"""Dependence of two sets of features through their kernel matrices: HSIC and CKA."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.alignment.moments import (
    centered_rows,
    check_same_rows,
    kept_rows,
    row_mask,
    zeroed_rows,
)
from datarax.functional.checks import accumulation_dtype, check_floating, check_rank
from datarax.functional.masking import safe_l2_normalize
from datarax.functional.similarity import pairwise_dot_product, pairwise_squared_distance

Kernel = Literal["linear", "rbf"]


def kernel_matrix(
    x: Num[Array, "n d"],
    *,
    kernel: Kernel = "linear",
    bandwidth: float | int | None = None,
    where: Array | None = None,
) -> Float[Array, "n n"]:
    r"""Linear $K_{ij} = (x_i - \bar x)^\top (x_j - \bar x)$, or $e^{-|x_i - x_j|^2 / 2\sigma^2}$.

    Args:
      x: features, one row an example.
      kernel: `"linear"` or `"rbf"`.
      bandwidth: $\sigma$ of the RBF kernel, positive; `None` takes $\sigma^2$ as the median of the
        squared distances between different kept rows (1 where that is 0), with its gradient.
      where: bool [n], the rows that count; others may hold NaN and have kernel 0.

    Returns:
      The matrix, at least float32. Rows are centred first, which no centred kernel sees and which
      keeps features far from the origin exact.

    Raises:
      TypeError: if `x` is not floating point or `where` not boolean.
      ValueError: if `x` is not a matrix, `where` does not fit, the kernel is unknown, the bandwidth
        not positive, or given for the linear kernel.

    Example:
      >>> kernel_matrix(jnp.array([[1.0], [3.0]]))
      Array([[ 1., -1.],
             [-1.,  1.]], dtype=float32)
    """
    if kernel not in get_args(Kernel):
        raise ValueError(f"kernel must be one of {list(get_args(Kernel))}, got {kernel!r}")
    if bandwidth is not None and (kernel == "linear" or not bandwidth > 0):
        raise ValueError(f"bandwidth must be positive and belongs to 'rbf', got {bandwidth}")
    centered = centered_rows(x, where=where)
    if kernel == "linear":
        return pairwise_dot_product(centered, centered)
    keep = row_mask(where, rows=x.shape[0])
    squares = pairwise_squared_distance(centered, centered)
    apart = keep[:, None] & keep[None, :] & ~jnp.eye(len(keep), dtype=bool)
    # The diagonal is 0 by rounding only, and its gradient is 0.
    squares = jnp.where(apart, squares, 0)
    variance = _median(squares, apart) if bandwidth is None else bandwidth**2
    return jnp.where(keep[:, None] & keep[None, :], jnp.exp(-squares / (2 * variance)), 0)


def hsic(
    a: Num[Array, "n d"],
    b: Num[Array, "m e"],
    *,
    kernel: Kernel = "linear",
    bandwidth: float | int | None = None,
    debiased: bool = False,
    where: Array | None = None,
) -> Float[Array, ""]:
    r"""Hilbert-Schmidt independence criterion, $\frac{1}{(n-1)^2} \mathrm{tr}(K H L H)$,

    or its unbiased estimate $\frac{1}{n(n-3)} \big[\mathrm{tr}(\tilde K \tilde L) + \frac{1^\top
    \tilde K 1\, 1^\top \tilde L 1}{(n-1)(n-2)} - \frac{2}{n-2} 1^\top \tilde K \tilde L 1\big]$
    with zero diagonals.

    Args:
      a, b: features of the same `n` examples; widths may differ.
      kernel, bandwidth: of both, see `kernel_matrix`.
      debiased: the unbiased estimate, whose mean is 0 for independent features.
      where: bool [n], the rows that count; equal to dropping the others, which may hold NaN.

    Returns:
      A scalar, at least float32; in [0, inf) unless debiased. 0 for constant features and with
      fewer than two rows, debiased fewer than four; the gradient is finite there. Without the
      factor $1 / (n-1)^2$ it is what platonic-rep calls biased.

    Raises:
      TypeError: if an input is not floating point or `where` not boolean.
      ValueError: if the rows differ in number, `where` does not fit, or as `kernel_matrix`.

    Reference: Gretton et al., 2005; Song et al., 2012, JMLR 13, equation 5.

    Example:
      >>> hsic(jnp.array([[1.0], [3.0]]), jnp.array([[1.0], [3.0]]))
      Array(4., dtype=float32)
    """
    left, right = _centered_kernels(
        a, b, kernel=kernel, bandwidth=bandwidth, debiased=debiased, where=where
    )
    if not debiased:
        divisor = kept_rows(where, rows=len(left), less=1) ** 2
    else:
        divisor = kept_rows(where, rows=len(left)) * kept_rows(where, rows=len(left), less=3)
    return jnp.sum(left * right) / divisor.astype(left.dtype)


def cka(
    a: Num[Array, "n d"],
    b: Num[Array, "m e"],
    *,
    kernel: Kernel = "linear",
    bandwidth: float | int | None = None,
    debiased: bool = False,
    where: Array | None = None,
) -> Float[Array, ""]:
    r"""Centred kernel alignment, $\mathrm{HSIC}(a, b) / \sqrt{\mathrm{HSIC}(a, a)
    \mathrm{HSIC}(b, b)}$.

    Args:
      a, b: features of the same `n` examples; widths may differ.
      kernel, bandwidth: of both, see `kernel_matrix`.
      debiased: by the unbiased HSIC.
      where: bool [n], the rows that count; equal to dropping the others, which may hold NaN.

    Returns:
      A scalar, at least float32, in [0, 1], debiased in [-1, 1]; linear CKA is indifferent to
      rotations and to scale. 0 with gradient 0 for constant features and with fewer than two rows,
      debiased fewer than four. Nothing is added to the denominator (platonic-rep adds 1e-6).

    Raises:
      TypeError, ValueError: as `hsic`.

    Reference: Kornblith et al., 2019, arXiv:1905.00414, equation 4.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]])
      >>> round(float(cka(x, -2 * x[:, ::-1])), 6)
      1.0
    """
    if kernel == "linear":
        a, b = _unit_scale(a, where, "a"), _unit_scale(b, where, "b")
    left, right = _centered_kernels(
        a, b, kernel=kernel, bandwidth=bandwidth, debiased=debiased, where=where
    )
    return jnp.sum(safe_l2_normalize(left.ravel()) * safe_l2_normalize(right.ravel()))


def _unit_scale(x: Array, where: Array | None, name: str) -> Array:
    """Rows over their largest magnitude, in whose scale a constant feature is told by rounding."""
    check_floating(**{name: x})
    check_rank(2, axes="[n, d]", **{name: x})
    kept = zeroed_rows(x, where=where)
    # Constant in the derivative: CKA does not depend on the scale.
    peak = jax.lax.stop_gradient(jnp.max(jnp.abs(kept), initial=0))
    return kept / jnp.where(peak == 0, 1, peak)


def _centered_kernels(
    a: Array,
    b: Array,
    *,
    kernel: Kernel,
    bandwidth: float | int | None,
    debiased: bool,
    where: Array | None,
) -> tuple[Array, Array]:
    """Both kernels less their row and column means; their inner product is HSIC's numerator."""
    check_floating(a=a, b=b)
    check_rank(2, axes="[n, d]", a=a, b=b)
    check_same_rows(a=a, b=b)
    keep = row_mask(where, rows=a.shape[0])
    left, right = (
        _centered_matrix(
            kernel_matrix(x, kernel=kernel, bandwidth=bandwidth, where=where), keep, debiased
        )
        for x in (a, b)
    )
    wide = accumulation_dtype(a, b)
    return left.astype(wide), right.astype(wide)


def _centered_matrix(matrix: Array, keep: Array, debiased: bool) -> Array:
    """$HKH$, or the U-centred matrix (Székely and Rizzo, 2014), whose products are unbiased."""
    pairs = keep[:, None] & keep[None, :]
    lost = 0
    if debiased:
        pairs = pairs & ~jnp.eye(len(keep), dtype=bool) & (jnp.sum(keep) > 3)
        lost = 2
    matrix = jnp.where(pairs, matrix, 0)
    rows = len(keep)
    divisor = kept_rows(keep, rows=rows, less=lost).astype(matrix.dtype)
    second = kept_rows(keep, rows=rows, less=lost // 2).astype(matrix.dtype)
    mean = jnp.sum(matrix, axis=1) / divisor
    total = jnp.sum(mean) / second
    return jnp.where(pairs, matrix - mean[:, None] - mean[None, :] + total, 0)


def _median(x: Array, where: Array) -> Array:
    """Median of the kept entries, the mean of the two middle ones; 1 where there is none or 0."""
    count = jnp.sum(where)
    ordered = jnp.sort(jnp.append(jnp.where(where, x, jnp.inf), jnp.inf))
    middle = jnp.stack([jnp.maximum(count - 1, 0) // 2, count // 2])
    both = ordered[middle]
    median = jnp.mean(jnp.where(jnp.isfinite(both), both, 0))
    return jnp.where(median > 0, median, 1)
