"""How alike two representations of the same records are, and how many dimensions one uses."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.alignment.moments import centered_rows, check_same_rows, row_mask
from datarax.functional.checks import (
    accumulation_dtype,
    check_floating,
    check_rank,
    check_same_shape,
)
from datarax.functional.masking import masked_mean
from datarax.functional.similarity import pairwise_dot_product


def distribution_gap(
    a: Num[Array, "n d"], b: Num[Array, "n d"], *, where: Array | None = None
) -> Float[Array, ""]:
    r"""What is left between pairs once both modalities are centred,

    $\sqrt{\frac1n \sum_i \lVert (a_i - \bar a) - (b_i - \bar b) \rVert^2}$. Its square and that of
    `modality_gap` (the distance of the centroids) add up to the mean squared distance of the pairs.

    Args:
      a, b: embeddings of one shape; row `i` of both is one record. Usually unit vectors.
      where: bool [n], the rows that count; others may hold NaN.

    Returns:
      A scalar, at least float32, in [0, inf); 0 with fewer than two rows.

    Raises:
      TypeError: if an input is not floating point or `where` not boolean.
      ValueError: if shapes do not fit.

    Reference: Liu et al., 2026, arXiv:2604.00279, divide the gap into a centroid gap and a
    distribution gap; this form is the remainder of that identity, our reading of it.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> float(distribution_gap(x, x + 3)), float(distribution_gap(x, x[::-1]))
      (0.0, 1.4142135381698608)
    """
    _check_pair(a, b)
    check_same_shape(a=a, b=b)
    keep = row_mask(where, rows=len(a))
    apart = centered_rows(a, where=where) - centered_rows(b, where=where)
    squares = masked_mean(jnp.sum(apart**2, axis=1), where=keep)
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)


def effective_rank(
    x: Num[Array, "n d"], *, where: Array | None = None, center: bool = False
) -> Float[Array, ""]:
    r"""$\exp\big(-\sum_k p_k \log p_k\big)$ of singular values, $p_k = \sigma_k / \sum_l \sigma_l$.

    Args:
      x: features, one row an example.
      where: bool [n], the rows that count; others may hold NaN.
      center: take the mean away first; the original does not.

    Returns:
      A scalar, at least float32, in [1, min(n, d)]; 0 if all singular values are 0.

    Raises:
      TypeError: if `x` is not floating point or `where` not boolean.
      ValueError: if shapes do not fit.

    Reference: Roy and Vetterli, 2007, "The effective rank", definition 1.

    Example:
      >>> round(float(effective_rank(jnp.eye(3))), 4)
      3.0
    """
    check_floating(x=x)
    check_rank(2, axes="[n, d]", x=x)
    rows = _rows(x, where, center=center)
    values = jnp.linalg.svd(rows, compute_uv=False)
    total = jnp.sum(values)
    shares = values / jnp.where(total > 0, total, 1)
    entropy = -jnp.sum(shares * jnp.log(jnp.where(shares > 0, shares, 1)))
    return jnp.where(total > 0, jnp.exp(entropy), 0)


def mutual_knn(
    a: Num[Array, "n d"], b: Num[Array, "n e"], *, k: int, where: Array | None = None
) -> Float[Array, ""]:
    r"""The share of its `k` nearest neighbours that a record has in common in both representations.

    Neighbours are those of the largest dot product, the record itself left out, of equal ones the
    lower index.

    Args:
      a, b: features of the same records; widths may differ. Normalise them first to compare angles.
      k: how many neighbours, at least 1; with `r` kept rows at most `r - 1` are looked at.
      where: bool [n], the rows that count; others may hold NaN and are no neighbours.

    Returns:
      A scalar, at least float32, in [0, 1], the mean over the kept rows; 0 with fewer than two.
      About `k / (n - 1)` for unrelated representations.

    Raises:
      TypeError: if an input is not floating point or `where` not boolean.
      ValueError: if shapes do not fit or `k < 1`.

    Reference: Huh et al., 2024, arXiv:2405.07987; platonic-rep `metrics.py`.

    Example:
      >>> x = jnp.arange(6.0).reshape(3, 2)
      >>> float(mutual_knn(x, 2 * x, k=1))
      1.0
    """
    _check_pair(a, b)
    keep = row_mask(where, rows=len(a))
    kernels = [_gram(_rows(x, where)) for x in (a, b)]
    near = [_nearest(kernel, keep, k=k, itself=False) for kernel in kernels]
    most = jnp.clip(jnp.sum(keep) - 1, 1, k).astype(kernels[0].dtype)
    shares = jnp.sum(near[0] & near[1], axis=1, dtype=most.dtype) / most
    return masked_mean(shares, where=keep)


def cknna(
    a: Num[Array, "n d"],
    b: Num[Array, "n e"],
    *,
    k: int,
    where: Array | None = None,
    debiased: bool = True,
    eps: float | int = 0.0,
) -> Float[Array, ""]:
    r"""CKA over the pairs that are near in both representations,

    $\mathrm{HSIC}(M K, M L) / (\sqrt{\mathrm{HSIC}(M_K K, M_K K)\, \mathrm{HSIC}(M_L L, M_L L)} +
    \epsilon)$ with $M_K$ and $M_L$ the `k` nearest neighbours of each row and $M = M_K M_L$.

    Args:
      a, b: features of the same records; widths may differ. The kernels are dot products.
      k: how many neighbours, at least 2; `n - 1` is (debiased) linear CKA.
      where: bool [n], the rows that count; others may hold NaN.
      debiased: Song et al.'s HSIC, where a row is not its own neighbour (needs four rows); else the
        biased one, where it may be.
      eps: added to the denominator; 1e-6 in the original.

    Returns:
      A scalar, at least float32, about in [-1, 1]; 0 where the root is not of a positive number,
      and debiased with fewer than four kept rows.

    Raises:
      TypeError: if an input is not floating point or `where` not boolean.
      ValueError: if shapes do not fit or `k < 2`.

    Reference: Huh et al., 2024, arXiv:2405.07987, appendix A; platonic-rep `metrics.py`.

    Example:
      >>> x = jax.random.normal(jax.random.key(0), (8, 3))
      >>> round(float(cknna(x, 2 * x, k=3)), 4)
      1.0
    """
    if k < 2:
        raise ValueError(f"k must be at least 2, got {k}")
    _check_pair(a, b)
    keep = row_mask(where, rows=len(a))
    first, second = (_gram(_rows(x, where)) for x in (a, b))
    near = [_nearest(kernel, keep, k=k, itself=not debiased) for kernel in (first, second)]
    measure = _hsic_debiased if debiased else _hsic

    def hsic(x: Array, y: Array, mask: Array) -> Array:
        return measure(jnp.where(mask, x, 0), jnp.where(mask, y, 0), keep)

    own = hsic(first, first, near[0]) * hsic(second, second, near[1])
    enough = jnp.sum(keep) > 3 if debiased else True
    positive = (own > 0) & enough
    root = jnp.sqrt(jnp.where(positive, own, 1)) + eps
    return jnp.where(positive, hsic(first, second, near[0] & near[1]) / root, 0)


def cca_correlation(
    a: Num[Array, "n d"],
    b: Num[Array, "n e"],
    *,
    num_components: int | None = None,
    where: Array | None = None,
) -> Float[Array, ""]:
    r"""Mean of the largest canonical correlations, the singular values of $U_a^\top U_b$ where the
    columns of $U_a$ and $U_b$ are orthonormal bases of the centred features (by SVD).

    Args:
      a, b: features of the same records; widths may differ.
      num_components: how many correlations, at most min(d, e), which `None` takes. Directions
        without variance (below the rounding of the largest) correlate with nothing.
      where: bool [n], the rows that count; others may hold NaN.

    Returns:
      A scalar, at least float32, in [0, 1]. With `n <= max(d, e)` rows in general position some
      correlations are 1 whatever the features: reduce the width first (SVCCA).

    Raises:
      TypeError: if an input is not floating point or `where` not boolean.
      ValueError: if shapes do not fit or `num_components` is not in [1, min(d, e)].

    Reference: Hotelling, 1936; Raghu et al., 2017, arXiv:1706.05806.

    Example:
      >>> x = jax.random.normal(jax.random.key(0), (9, 2))
      >>> round(float(cca_correlation(x, x @ jnp.array([[1.0, 2.0], [3.0, 4.0]]))), 4)
      1.0
    """
    _check_pair(a, b)
    most = min(a.shape[1], b.shape[1])
    count = most if num_components is None else num_components
    if not 1 <= count <= most:
        raise ValueError(f"num_components must be in [1, {most}], got {num_components}")
    bases = [_basis(centered_rows(x, where=where)) for x in (a, b)]
    values = jnp.linalg.svd(pairwise_dot_product(bases[0].T, bases[1].T), compute_uv=False)
    return jnp.sum(values[:count]) / count


def _check_pair(a: Array, b: Array) -> None:
    check_floating(a=a, b=b)
    check_rank(2, axes="[n, d]", a=a, b=b)
    check_same_rows(a=a, b=b)


def _rows(x: Array, where: Array | None, *, center: bool = False) -> Array:
    if center:
        return centered_rows(x, where=where)
    keep = row_mask(where, rows=len(x))
    return jnp.where(keep[:, None], x, 0).astype(accumulation_dtype(x))


def _gram(x: Array) -> Array:
    return pairwise_dot_product(x, x)


def _basis(x: Array) -> Array:
    left, values, _ = jnp.linalg.svd(x, full_matrices=False)
    floor = max(x.shape) * jnp.finfo(x.dtype).eps * jnp.max(values, initial=0)
    return jnp.where((values > floor)[None, :], left, 0)


def _nearest(kernel: Array, keep: Array, *, k: int, itself: bool) -> Array:
    """Which columns are among the `k` largest of each row: bool [n, n]."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    n = len(kernel)
    there = keep[:, None] & keep[None, :]
    there = there if itself else there & ~jnp.eye(n, dtype=bool)
    _, found = jax.lax.top_k(jnp.where(there, kernel, -jnp.inf), min(k, n))
    rows = jnp.arange(n, dtype=found.dtype)[:, None]
    return jnp.zeros((n, n), bool).at[rows, found].set(True) & there


def _hsic(x: Array, y: Array, keep: Array) -> Array:
    def centered(kernel: Array) -> Array:
        means = masked_mean(kernel, where=keep[None, :], axis=1)
        return jnp.where(keep[None, :], kernel - means[:, None], 0)

    return jnp.sum(centered(x) * centered(y).T)


def _hsic_debiased(x: Array, y: Array, keep: Array) -> Array:
    """Song et al., 2012, equation 5, also for the kernels that a mask left without symmetry."""
    off = ~jnp.eye(len(x), dtype=bool)
    x, y = jnp.where(off, x, 0), jnp.where(off, y, 0)
    n = jnp.maximum(jnp.sum(keep, dtype=x.dtype), 4)
    cross = jnp.sum(jnp.sum(x, axis=0) * jnp.sum(y, axis=1))
    total = jnp.sum(x) * jnp.sum(y) / ((n - 1) * (n - 2)) - 2 * cross / (n - 2)
    return (jnp.sum(x * y.T) + total) / (n * (n - 3))
