"""How well two modalities agree: record by record, and as two clouds of points."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.alignment.moments import row_mask, zeroed_rows
from datarax.functional.checks import (
    accumulation_dtype,
    check_floating,
    check_rank,
    check_same_shape,
)
from datarax.functional.masking import (
    masked_logsumexp,
    masked_mean,
    safe_l2_norm,
    safe_l2_normalize,
)
from datarax.functional.similarity import cosine_similarity, pairwise_squared_distance


def cosine_alignment(a: Num[Array, "... d"], b: Num[Array, "... e"]) -> Float[Array, "..."]:
    r"""Cosine distance of each record, $\ell = 1 - a \cdot b / (\lVert a \rVert \lVert b \rVert)$.

    Args:
      a, b: vectors along the last axis, of one shape.

    Returns:
      The leading shape, at least float32, in [0, 2] up to rounding. 1 with gradient 0 if either
      vector is zero.

    Raises:
      TypeError: if an input is not floating point.
      ValueError: if the shapes differ.

    Example:
      >>> cosine_alignment(jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0]))
      Array(1., dtype=float32)
    """
    return 1 - cosine_similarity(a, b)


def squared_error_alignment(a: Num[Array, "... d"], b: Num[Array, "... e"]) -> Float[Array, "..."]:
    r"""Mean squared difference of each record, $\ell = \frac1d \sum_k (a_k - b_k)^2$.

    Args:
      a, b: vectors along the last axis, of one shape.

    Returns:
      The leading shape, at least float32, in [0, inf).

    Raises:
      TypeError: if an input is not floating point.
      ValueError: if the shapes differ.

    Example:
      >>> squared_error_alignment(jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0]))
      Array(2.5, dtype=float32)
    """
    return jnp.mean(_difference(a, b) ** 2, axis=-1)


def huber_penalty(x: Num[Array, "..."], *, delta: float | int = 1.0) -> Float[Array, "..."]:
    r"""$h_\delta(x) = \frac12 x^2$ up to $\delta$, and $\delta(|x| - \frac12 \delta)$ beyond.

    Args:
      x: differences.
      delta: where it turns linear, positive.

    Returns:
      The shape of `x`, at least float32, in [0, inf).

    Raises:
      TypeError: if `x` is not floating point.
      ValueError: if `delta` is not positive.

    Reference: Huber, 1964; `optax.huber_loss`.

    Example:
      >>> huber_penalty(jnp.array([0.5, -3.0]))
      Array([0.125, 2.5  ], dtype=float32)
    """
    check_floating(x=x)
    if not delta > 0:
        raise ValueError(f"delta must be positive, got {delta}")
    size = jnp.abs(x.astype(accumulation_dtype(x)))
    inner = jnp.minimum(size, delta)
    return inner**2 / 2 + delta * (size - inner)


def huber_alignment(
    a: Num[Array, "... d"], b: Num[Array, "... e"], *, delta: float | int = 1.0
) -> Float[Array, "..."]:
    r"""Mean Huber penalty of the difference, $\ell = \frac1d \sum_k h_\delta(a_k - b_k)$.

    Args:
      a, b: vectors along the last axis, of one shape.
      delta: where the penalty turns linear, positive.

    Returns:
      The leading shape, at least float32, in [0, inf).

    Raises:
      TypeError: if an input is not floating point.
      ValueError: if the shapes differ or `delta` is not positive.

    Reference: `optax.huber_loss`.

    Example:
      >>> huber_alignment(jnp.array([1.0, 0.0]), jnp.array([0.0, 3.0]))
      Array(1.5, dtype=float32)
    """
    return jnp.mean(huber_penalty(_difference(a, b), delta=delta), axis=-1)


def alignment_loss(
    a: Num[Array, "... d"], b: Num[Array, "... e"], *, power: float | int = 2.0
) -> Float[Array, "..."]:
    r"""Distance of each positive pair to a power, $\ell = \lVert a - b \rVert_2^{\alpha}$.

    Args:
      a, b: vectors along the last axis, of one shape; unit vectors in the paper. Not normalised
        here.
      power: the exponent alpha, positive.

    Returns:
      The leading shape, at least float32, in [0, inf); the paper's loss is the mean. Equal vectors
      give 0 with gradient 0, also for a power below 1.

    Raises:
      TypeError: if an input is not floating point.
      ValueError: if the shapes differ or `power` is not positive.

    Reference: Wang and Isola, 2020, arXiv:2005.10242, section 4.1.1.

    Example:
      >>> alignment_loss(jnp.array([3.0, 0.0]), jnp.array([0.0, 4.0]), power=1.0)
      Array(5., dtype=float32)
    """
    if not power > 0:
        raise ValueError(f"power must be positive, got {power}")
    difference = _difference(a, b)
    if power == 2:
        return jnp.sum(difference**2, axis=-1)
    norm = safe_l2_norm(difference)
    return jnp.where(norm == 0, 0, jnp.where(norm == 0, 1, norm) ** power)


def uniformity(
    x: Num[Array, "n d"], *, t: float | int = 2.0, where: Array | None = None
) -> Float[Array, ""]:
    r"""Spread of points on the sphere, $\log \frac{1}{|P|} \sum_{(i,j) \in P} e^{-t|x_i - x_j|^2}$.

    `P` holds the pairs of different kept rows.

    Args:
      x: vectors; unit vectors in the paper. Not normalised here.
      t: the factor in the exponent, positive.
      where: bool [n], the rows that count; others may hold NaN.

    Returns:
      A scalar, at least float32, in (-inf, 0], lower for a more even spread; 0 with fewer than two
      rows and for identical rows.

    Raises:
      TypeError: if `x` is not floating point or `where` not boolean.
      ValueError: if `x` is not a matrix, `where` does not fit or `t` is not positive.

    Reference: Wang and Isola, 2020, arXiv:2005.10242, section 4.1.2.

    Example:
      >>> uniformity(jnp.array([[1.0, 0.0], [-1.0, 0.0]]))
      Array(-8., dtype=float32)
    """
    check_floating(x=x)
    check_rank(2, axes="[n, d]", x=x)
    if not t > 0:
        raise ValueError(f"t must be positive, got {t}")
    keep = row_mask(where, rows=x.shape[0])
    kept = jnp.where(keep[:, None], x, 0)
    pairs = keep[:, None] & keep[None, :] & ~jnp.eye(x.shape[0], dtype=bool)
    exponents = -t * pairwise_squared_distance(kept, kept)
    count = jnp.sum(pairs, dtype=exponents.dtype)
    total = masked_logsumexp(exponents.ravel(), where=pairs.ravel())
    return total - jnp.log(jnp.maximum(count, 1))


def centroid_uniformity(
    a: Num[Array, "n d"], b: Num[Array, "m e"], *, t: float | int = 2.0, where: Array | None = None
) -> Float[Array, ""]:
    r"""`uniformity` of the pairs' centroids $(a_i + b_i) / \lVert a_i + b_i \rVert$.

    It spreads pairs, not modalities, over the sphere: with `alignment_loss` it closes the gap
    between two modalities that contrastive learning leaves open.

    Args:
      a, b: embeddings of one shape; unit vectors in the paper. Their centroids are normalised here,
        that of opposite vectors is 0.
      t: the factor in the exponent, positive.
      where: bool [n], the rows that count; others may hold NaN.

    Returns:
      A scalar, at least float32, in (-inf, 0]; 0 with fewer than two rows.

    Raises:
      TypeError: if an input is not floating point or `where` not boolean.
      ValueError: if the shapes differ, `where` does not fit or `t` is not positive.

    Reference: Grassucci et al., 2026, arXiv:2601.18525 (ModGap, `lunif` of `centroids`).

    Example:
      >>> x = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
      >>> centroid_uniformity(x, 3 * x)
      Array(-8., dtype=float32)
    """
    check_floating(a=a, b=b)
    check_rank(2, axes="[n, d]", a=a, b=b)
    check_same_shape(a=a, b=b)
    wide = accumulation_dtype(a, b)
    a, b = (zeroed_rows(x.astype(wide), where=where) for x in (a, b))
    return uniformity(safe_l2_normalize(a + b), t=t, where=where)


def modality_gap(
    a: Num[Array, "n d"], b: Num[Array, "m e"], *, where: Array | None = None
) -> Float[Array, ""]:
    r"""Distance of the two centroids, $\lVert \bar a - \bar b \rVert_2$ over the kept rows.

    Args:
      a, b: embeddings; unit vectors in the paper. Not normalised here.
      where: bool [n], the rows that count in both; others may hold NaN.

    Returns:
      A scalar, at least float32, in [0, inf); 0 with gradient 0 for equal centroids and when no
      row is kept.

    Raises:
      TypeError: if an input is not floating point or `where` not boolean.
      ValueError: if the shapes differ or `where` does not fit.

    Reference: Liang et al., 2022, arXiv:2203.02053, section 4.

    Example:
      >>> modality_gap(jnp.zeros((2, 2)), jnp.array([[3.0, 4.0], [3.0, 4.0]]))
      Array(5., dtype=float32)
    """
    check_floating(a=a, b=b)
    check_rank(2, axes="[n, d]", a=a, b=b)
    check_same_shape(a=a, b=b)
    keep = row_mask(where, rows=a.shape[0])[:, None]
    wide = accumulation_dtype(a, b)
    centre_a, centre_b = (masked_mean(x.astype(wide), where=keep, axis=0) for x in (a, b))
    return safe_l2_norm(centre_a - centre_b)


def _difference(a: Array, b: Array) -> Array:
    check_floating(a=a, b=b)
    check_same_shape(a=a, b=b)
    wide = accumulation_dtype(a, b)
    return a.astype(wide) - b.astype(wide)
