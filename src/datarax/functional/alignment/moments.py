"""Centred rows and covariances over the rows that are kept."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.checks import (
    accumulation_dtype,
    broadcast_mask,
    check_floating,
    check_mask,
    check_rank,
)
from datarax.functional.masking import masked_mean
from datarax.functional.similarity import pairwise_dot_product


def row_mask(where: Array | None, *, rows: int) -> Array:
    """The mask bool [n] of kept rows, all True for `None`.

    Raises:
      TypeError: if it is not boolean.
      ValueError: if its shape is not [n].

    Example:
      >>> row_mask(None, rows=2)
      Array([ True,  True], dtype=bool)
    """
    if where is not None:
        check_mask(where, shape=(rows,), name="where")
    return broadcast_mask(where, shape=(rows,), name="where")


def zeroed_rows(x: Num[Array, "n d"], *, where: Array | None = None) -> Float[Array, "n d"]:
    """The rows in at least float32, masked ones 0, whatever they held.

    Raises:
      TypeError: if `x` is not floating point or `where` not boolean.
      ValueError: if `x` is not a matrix or `where` does not fit.

    Example:
      >>> zeroed_rows(jnp.array([[1.0], [jnp.nan]]), where=jnp.array([True, False])).tolist()
      [[1.0], [0.0]]
    """
    check_floating(x=x)
    check_rank(2, axes="[n, d]", x=x)
    keep = row_mask(where, rows=x.shape[0])[:, None]
    return jnp.where(keep, x, 0).astype(accumulation_dtype(x))


def centered_rows(x: Num[Array, "n d"], *, where: Array | None = None) -> Float[Array, "n d"]:
    r"""Kept rows less their mean, $x_i - \bar x$; masked rows are 0, whatever they held.

    Args:
      x: one row an example.
      where: bool [n], the rows that count; others may hold NaN.

    Returns:
      The shape of `x`, at least float32; 0 for a single row.

    Raises:
      TypeError: if `x` is not floating point or `where` not boolean.
      ValueError: if `x` is not a matrix or `where` does not fit.

    Example:
      >>> centered_rows(jnp.array([[1.0], [3.0], [9.0]]), where=jnp.array([True, True, False]))
      Array([[-1.],
             [ 1.],
             [ 0.]], dtype=float32)
    """
    wide = zeroed_rows(x, where=where)
    keep = row_mask(where, rows=x.shape[0])[:, None]
    return jnp.where(keep, wide - masked_mean(wide, where=keep, axis=0)[None, :], 0)


def cross_covariance(
    a: Num[Array, "n d"], b: Num[Array, "m e"], *, ddof: int = 1, where: Array | None = None
) -> Float[Array, "d e"]:
    r"""$C_{kl} = \frac{1}{n - \mathrm{ddof}} \sum_i (a_{ik} - \bar a_k)(b_{il} - \bar b_l)$.

    Args:
      a, b: rows that belong together; widths may differ.
      ddof: what is taken from the number of kept rows; the divisor is at least 1.
      where: bool [n], the rows that count in both; others may hold NaN.

    Returns:
      The matrix, at least float32; 0 for fewer than two rows.

    Raises:
      TypeError: if an input is not floating point or `where` not boolean.
      ValueError: if an input is not a matrix, the rows differ in number or `where` does not fit.

    Example:
      >>> cross_covariance(jnp.array([[0.0], [2.0]]), jnp.array([[0.0, 1.0], [4.0, 1.0]]))
      Array([[4., 0.]], dtype=float32)
    """
    check_floating(a=a, b=b)
    check_rank(2, axes="[n, d]", a=a, b=b)
    check_same_rows(a=a, b=b)
    products = pairwise_dot_product(
        centered_rows(a, where=where).T, centered_rows(b, where=where).T
    )
    return products / kept_rows(where, rows=a.shape[0], less=ddof).astype(products.dtype)


def kept_rows(where: Array | None, *, rows: int, less: int = 0) -> Float[Array, ""]:
    """The number of kept rows less `less`, at least 1: what sums over rows are divided by.

    Example:
      >>> kept_rows(jnp.array([True, True, False]), rows=3, less=1)
      Array(1., dtype=float32)
    """
    count = jnp.sum(row_mask(where, rows=rows), dtype=jnp.float32)
    return jnp.maximum(count - less, 1)


def check_same_rows(**arrays: Array) -> None:
    """Reject arrays that differ in their number of rows.

    Raises:
      ValueError: naming every argument with its shape.

    Example:
      >>> check_same_rows(a=jnp.zeros((3, 2)), b=jnp.zeros((3, 5)))
    """
    if len({x.shape[0] for x in arrays.values()}) > 1:
        listed = ", ".join(f"{name} {x.shape}" for name, x in arrays.items())
        raise ValueError(f"expected one number of rows, got {listed}")
