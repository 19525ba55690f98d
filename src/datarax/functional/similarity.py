"""Similarities between embeddings: record by record, and all pairs of two sets."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.checks import (
    accumulation_dtype,
    check_floating,
    check_rank,
    check_same_shape,
    common_dtype,
)
from datarax.functional.masking import safe_l2_normalize


def cosine_similarity(a: Num[Array, "... d"], b: Num[Array, "... e"]) -> Float[Array, "..."]:
    r"""Cosine of the angle between two vectors, $a \cdot b / (\lVert a \rVert \lVert b \rVert)$.

    Args:
      a, b: vectors along the last axis, of one shape.

    Returns:
      The leading shape, at least float32, in [-1, 1] up to rounding (not clipped: a clip would
      stop the gradient at 1). 0 with gradient 0 if either vector is zero.

    Raises:
      TypeError: if an input is not floating point.
      ValueError: if the shapes differ.

    Example:
      >>> cosine_similarity(jnp.array([1.0, 0.0]), jnp.array([3.0, 4.0]))
      Array(0.6, dtype=float32)
    """
    check_floating(a=a, b=b)
    check_same_shape(a=a, b=b)
    wide = accumulation_dtype(a, b)
    units = safe_l2_normalize(a.astype(wide)) * safe_l2_normalize(b.astype(wide))
    return jnp.sum(units, axis=-1)


def pairwise_dot_product(a: Num[Array, "n d"], b: Num[Array, "m e"]) -> Float[Array, "n m"]:
    r"""All dot products, $S_{ij} = a_i \cdot b_j$.

    Args:
      a, b: vectors along the last axis, of one width.

    Returns:
      The matrix, accumulated and returned in at least float32. float32 inputs are multiplied in
      full precision on every device, where a GPU's default would round them to TF32.

    Raises:
      TypeError: if an input is not floating point.
      ValueError: if an input is not a matrix or the widths differ.

    Example:
      >>> pairwise_dot_product(jnp.eye(2), jnp.array([[1.0, 2.0]]))
      Array([[1.],
             [2.]], dtype=float32)
    """
    _check_pair(a, b)
    a, b = common_dtype(a, b)
    return jnp.einsum(
        "nd,md->nm",
        a,
        b,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=accumulation_dtype(a),
    )


def pairwise_cosine_similarity(a: Num[Array, "n d"], b: Num[Array, "m e"]) -> Float[Array, "n m"]:
    r"""All cosines, $S_{ij} = a_i \cdot b_j / (\lVert a_i \rVert \lVert b_j \rVert)$.

    Args:
      a, b: vectors along the last axis, of one width.

    Returns:
      The matrix in at least float32, in [-1, 1] up to rounding; the row or column of a zero
      vector is 0.

    Raises:
      TypeError: if an input is not floating point.
      ValueError: if an input is not a matrix or the widths differ.

    Example:
      >>> pairwise_cosine_similarity(2 * jnp.eye(2), jnp.array([[3.0, 4.0]]))
      Array([[0.6],
             [0.8]], dtype=float32)
    """
    _check_pair(a, b)
    wide = accumulation_dtype(a, b)
    return pairwise_dot_product(
        safe_l2_normalize(a.astype(wide)), safe_l2_normalize(b.astype(wide))
    )


def pairwise_squared_distance(a: Num[Array, "n d"], b: Num[Array, "m e"]) -> Float[Array, "n m"]:
    r"""All squared distances, $D_{ij} = \lVert a_i \rVert^2 + \lVert b_j \rVert^2 - 2 a_i b_j$.

    Args:
      a, b: vectors along the last axis, of one width.

    Returns:
      The matrix in at least float32, in [0, inf): what rounding takes below 0 is set to 0. The
      error is that of the squared norms, about 1e-7 of them in float32.

    Raises:
      TypeError: if an input is not floating point.
      ValueError: if an input is not a matrix or the widths differ.

    Example:
      >>> pairwise_squared_distance(jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]]))
      Array([[25.]], dtype=float32)
    """
    _check_pair(a, b)
    wide = accumulation_dtype(a, b)
    a, b = a.astype(wide), b.astype(wide)
    squares = jnp.sum(a**2, axis=1)[:, None] + jnp.sum(b**2, axis=1)[None, :]
    return jnp.maximum(squares - 2 * pairwise_dot_product(a, b), 0)


def _check_pair(a: Array, b: Array) -> None:
    check_floating(a=a, b=b)
    check_rank(2, axes="[n, d]", a=a, b=b)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a and b must have one width, got shapes {a.shape} and {b.shape}")
