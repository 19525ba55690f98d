"""Losses that align two modalities feature by feature and keep the features from collapsing."""

from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.alignment.moments import (
    centered_rows,
    cross_covariance,
    kept_rows,
    row_mask,
    zeroed_rows,
)
from datarax.functional.checks import (
    accumulation_dtype,
    check_floating,
    check_rank,
    check_same_shape,
)
from datarax.functional.masking import masked_mean
from datarax.functional.similarity import pairwise_dot_product

Statistics = Literal["each", "pooled"]


class VICRegTerms(NamedTuple):
    """The three scalars that VICReg weighs."""

    invariance: Float[Array, ""]
    variance: Float[Array, ""]
    covariance: Float[Array, ""]


def vicreg_terms(
    a: Num[Array, "n d"],
    b: Num[Array, "m e"],
    *,
    eps: float | int = 1e-4,
    where: Array | None = None,
) -> VICRegTerms:
    r"""The terms of VICReg, with $\mathrm{Var}$ and $C$ of ddof 1:

    invariance $\frac{1}{nd}\sum_i \lVert a_i - b_i \rVert^2$, variance
    $\frac12 \sum_{z \in \{a, b\}} \frac1d \sum_k \max(0, 1 - \sqrt{\mathrm{Var}(z_k) +
    \epsilon})$, covariance $\sum_{z \in \{a, b\}} \frac1d \sum_{k \ne l} C(z)_{kl}^2$.

    Args:
      a, b: embeddings of one shape. Not normalised here, nor in the paper.
      eps: added to the variance; positive, which keeps the gradient of a constant feature finite.
      where: bool [n], the rows that count; others may hold NaN.

    Returns:
      Three scalars, at least float32, in [0, inf). Fewer than two rows have variance and covariance
      0 (the hinge is then $1 - \sqrt\epsilon$); no row gives three zeros with gradient 0.

    Raises:
      TypeError: if an input is not floating point or `where` not boolean.
      ValueError: if the shapes differ, `where` does not fit or `eps` is not positive.

    Reference: Bardes et al., 2022, arXiv:2105.04906, equations 1 to 5; the factor 1/2 of the
    variance is that of the authors' code and of lightly, cca_zoo has 1.

    Example:
      >>> vicreg_terms(jnp.array([[0.0], [4.0]]), jnp.array([[1.0], [5.0]])).invariance
      Array(1., dtype=float32)
    """
    _check_pair(a, b, eps)
    keep = row_mask(where, rows=a.shape[0])
    wide = accumulation_dtype(a, b)
    a, b = (zeroed_rows(x.astype(wide), where=where) for x in (a, b))
    invariance = masked_mean(jnp.mean((a - b) ** 2, axis=1), where=keep)
    covariances = [cross_covariance(x, x, where=where) for x in (a, b)]
    hinges = [jnp.mean(jnp.maximum(1 - jnp.sqrt(jnp.diagonal(c) + eps), 0)) for c in covariances]
    apart = ~jnp.eye(a.shape[1], dtype=bool)
    squares = [jnp.sum(jnp.where(apart, c, 0) ** 2) / a.shape[1] for c in covariances]
    variance = jnp.where(jnp.any(keep), (hinges[0] + hinges[1]) / 2, 0)
    return VICRegTerms(invariance, variance, squares[0] + squares[1])


def vicreg(
    a: Num[Array, "n d"],
    b: Num[Array, "m e"],
    *,
    invariance_weight: float | int = 25.0,
    variance_weight: float | int = 25.0,
    covariance_weight: float | int = 1.0,
    eps: float | int = 1e-4,
    where: Array | None = None,
) -> Float[Array, ""]:
    r"""Variance-invariance-covariance regularisation, $\lambda s + \mu v + \nu c$.

    $s$, $v$ and $c$ are `vicreg_terms`.

    Args:
      a, b: embeddings of one shape. Not normalised here.
      invariance_weight, variance_weight, covariance_weight: 25, 25 and 1 in the paper.
      eps: added to the variance, positive.
      where: bool [n], the rows that count; others may hold NaN.

    Returns:
      A scalar, at least float32, in [0, inf); 0 with gradient 0 when no row is kept.

    Raises:
      TypeError, ValueError: as `vicreg_terms`.

    Reference: Bardes et al., 2022, arXiv:2105.04906, equation 6.

    Example:
      >>> vicreg(jnp.array([[0.0], [4.0]]), jnp.array([[1.0], [5.0]]))
      Array(25., dtype=float32)
    """
    _check_pair(a, b, eps)
    terms = vicreg_terms(a, b, eps=eps, where=where)
    return (
        invariance_weight * terms.invariance
        + variance_weight * terms.variance
        + covariance_weight * terms.covariance
    )


def barlow_twins(
    a: Num[Array, "n d"],
    b: Num[Array, "m e"],
    *,
    redundancy_weight: float | int = 5e-3,
    ddof: int = 0,
    statistics: Statistics = "each",
    eps: float | int = 1e-5,
    where: Array | None = None,
) -> Float[Array, ""]:
    r"""Barlow Twins, $\sum_k (1 - C_{kk})^2 + \lambda \sum_{k \ne l} C_{kl}^2$, where

    $C = \frac1n \hat a^\top \hat b$ and $\hat z_k = (z_k - \bar z_k) / \sqrt{\mathrm{Var}(z_k) +
    \epsilon}$.

    Args:
      a, b: embeddings of one shape.
      redundancy_weight: lambda; 5e-3 is the paper's.
      ddof: of the variance, 0 as in batch normalisation (the authors' code) or 1 (the paper's
        pseudocode). The sum of products is divided by `n` in either.
      statistics: `"each"` modality has its mean and variance, as in the paper; `"pooled"` takes
        them over the rows of both, as lightly does, which then penalises the modality gap too.
      eps: added to the variance, positive; 1e-5 is that of batch normalisation.
      where: bool [n], the rows that count; others may hold NaN.

    Returns:
      A scalar, at least float32, in [0, inf). A constant feature has correlation 0 and adds 1; one
      row gives `d`, no row 0. Gradients are finite there.

    Raises:
      TypeError: if an input is not floating point or `where` not boolean.
      ValueError: if the shapes differ, `where` does not fit, `eps` is not positive, `ddof` neither
        0 nor 1 or `statistics` unknown.

    Reference: Zbontar et al., 2021, arXiv:2103.03230, equations 1 and 2.

    Example:
      >>> barlow_twins(jnp.zeros((3, 2)), jnp.ones((3, 2)))
      Array(2., dtype=float32)
    """
    _check_pair(a, b, eps)
    if ddof not in (0, 1):
        raise ValueError(f"ddof must be 0 or 1, got {ddof}")
    if statistics not in get_args(Statistics):
        raise ValueError(
            f"statistics must be one of {list(get_args(Statistics))}, got {statistics!r}"
        )
    rows, width = a.shape
    keep = row_mask(where, rows=rows)
    wide = accumulation_dtype(a, b)
    a, b = a.astype(wide), b.astype(wide)
    if statistics == "pooled":
        both = _standardized(jnp.concatenate([a, b]), jnp.concatenate([keep, keep]), ddof, eps)
        a, b = both[:rows], both[rows:]
    else:
        a, b = _standardized(a, keep, ddof, eps), _standardized(b, keep, ddof, eps)
    correlation = pairwise_dot_product(a.T, b.T) / kept_rows(where, rows=rows).astype(wide)
    diagonal = jnp.eye(width, dtype=bool)
    loss = jnp.sum(jnp.where(diagonal, 1 - correlation, 0) ** 2)
    loss = loss + redundancy_weight * jnp.sum(jnp.where(diagonal, 0, correlation) ** 2)
    return jnp.where(jnp.any(keep), loss, 0)


def _standardized(x: Array, keep: Array, ddof: int, eps: float | int) -> Array:
    """Columns of mean 0 and variance 1 over the kept rows; masked rows are 0."""
    centered = centered_rows(x, where=keep)
    count = kept_rows(keep, rows=len(x), less=ddof).astype(centered.dtype)
    variance = jnp.sum(centered**2, axis=0) / count
    return centered / jnp.sqrt(variance + eps)[None, :]


def _check_pair(a: Array, b: Array, eps: float | int) -> None:
    check_floating(a=a, b=b)
    check_rank(2, axes="[n, d]", a=a, b=b)
    check_same_shape(a=a, b=b)
    if not eps > 0:
        raise ValueError(f"eps must be positive, got {eps}")
