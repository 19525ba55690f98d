"""Losses that make the similarities of two modalities agree: cycles and similarity matrices."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.alignment.moments import check_same_rows, kept_rows, zeroed_rows
from datarax.functional.checks import (
    accumulation_dtype,
    check_floating,
    check_rank,
    check_same_shape,
)
from datarax.functional.similarity import pairwise_dot_product


def cross_modal_consistency(
    a: Num[Array, "n d"], b: Num[Array, "m e"], *, where: Array | None = None
) -> Float[Array, " n"]:
    r"""CyCLIP's cross-modal term, $\ell_i = \sum_j (a_i \cdot b_j - a_j \cdot b_i)^2$.

    Args:
      a, b: embeddings of one shape; unit vectors in the paper. Not normalised here, and without
        temperature (the authors' code multiplies by it and divides it out).
      where: bool [n], the rows that count; others may hold NaN.

    Returns:
      One loss per row, at least float32, in [0, inf), 0 in masked rows; the mean over the kept rows
      is the paper's. 0 for one row and for identical modalities.

    Raises:
      TypeError: if an input is not floating point or `where` not boolean.
      ValueError: if the shapes differ or `where` does not fit.

    Reference: Goel et al., 2022, arXiv:2205.14459, equation 2.

    Example:
      >>> cross_modal_consistency(jnp.eye(2), jnp.array([[1.0, 1.0], [0.0, 1.0]]))
      Array([1., 1.], dtype=float32)
    """
    check_same_shape(a=a, b=b)
    logits = pairwise_dot_product(*_related(a, b, where))
    return jnp.sum((logits - logits.T) ** 2, axis=1)


def in_modal_consistency(
    a: Num[Array, "n d"], b: Num[Array, "m e"], *, where: Array | None = None
) -> Float[Array, " n"]:
    r"""CyCLIP's in-modal term, $\ell_i = \sum_j (a_i \cdot a_j - b_i \cdot b_j)^2$.

    Args:
      a, b: embeddings of the same rows; widths may differ. Unit vectors in the paper.
      where: bool [n], the rows that count; others may hold NaN.

    Returns:
      One loss per row, at least float32, in [0, inf), 0 in masked rows; the mean over the kept rows
      is the paper's. 0 for identical modalities and where one is the other rotated.

    Raises:
      TypeError: if an input is not floating point or `where` not boolean.
      ValueError: if the rows differ in number or `where` does not fit.

    Reference: Goel et al., 2022, arXiv:2205.14459, equation 3.

    Example:
      >>> in_modal_consistency(jnp.eye(2), jnp.array([[1.0], [1.0]]))
      Array([1., 1.], dtype=float32)
    """
    a, b = _related(a, b, where)
    return jnp.sum((pairwise_dot_product(a, a) - pairwise_dot_product(b, b)) ** 2, axis=1)


def similarity_matching(
    a: Num[Array, "n d"], b: Num[Array, "m e"], *, where: Array | None = None
) -> Float[Array, " n"]:
    r"""Mean squared error of the similarities to the other rows,

    $\ell_i = \frac{1}{n-1} \sum_{j \ne i} (a_i \cdot a_j - b_i \cdot b_j)^2$.

    Args:
      a, b: embeddings of the same rows; widths may differ. Unit vectors in x-clip.
      where: bool [n], the rows that count; others may hold NaN.

    Returns:
      One loss per row, at least float32, in [0, inf), 0 in masked rows and for one row; the mean
      over the kept rows is x-clip's similarity regularisation.

    Raises:
      TypeError: if an input is not floating point or `where` not boolean.
      ValueError: if the rows differ in number or `where` does not fit.

    Reference: x-clip 0.14.4, `sim_reg_loss_weight`; Tung and Mori, 2019, arXiv:1907.09682.

    Example:
      >>> similarity_matching(jnp.eye(2), jnp.array([[3.0], [1.0]]))
      Array([9., 9.], dtype=float32)
    """
    a, b = _related(a, b, where)
    difference = pairwise_dot_product(a, a) - pairwise_dot_product(b, b)
    apart = ~jnp.eye(a.shape[0], dtype=bool)
    total = jnp.sum(jnp.where(apart, difference, 0) ** 2, axis=1)
    return total / kept_rows(where, rows=a.shape[0], less=1).astype(total.dtype)


def _related(a: Array, b: Array, where: Array | None) -> tuple[Array, Array]:
    """Both inputs checked, in the dtype of accumulation, with zeros in masked rows."""
    check_floating(a=a, b=b)
    check_rank(2, axes="[n, d]", a=a, b=b)
    check_same_rows(a=a, b=b)
    wide = accumulation_dtype(a, b)
    return zeroed_rows(a.astype(wide), where=where), zeroed_rows(b.astype(wide), where=where)
