"""What the contrastive losses take: rows, ids, masks and scalars, checked while tracing."""

from collections.abc import Sequence
from typing import Any, get_args

import jax.numpy as jnp
from jaxtyping import Array

from datarax.functional.checks import (
    accumulation_dtype,
    check_floating,
    check_mask,
    check_rank,
    check_same_shape,
)
from datarax.functional.similarity import pairwise_dot_product


def check_choice(value: str, choices: Any, *, name: str) -> None:
    """Reject a value that is none of a `Literal`'s.

    Raises:
      ValueError: listing the choices.
    """
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {list(get_args(choices))}, got {value!r}")


def check_label_smoothing(value: float) -> None:
    """Reject a share that is not in [0, 1).

    Raises:
      ValueError: if it is not.
    """
    if not 0 <= value < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {value}")


def check_ids(ids: Array | None, *, shape: tuple[int, ...], name: str = "ids") -> None:
    """Reject ids that are not integers of the given shape; `None` passes.

    Raises:
      TypeError: if they are not integers.
      ValueError: if their shape differs.
    """
    if ids is None:
        return
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers, got {ids.dtype}")
    if ids.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {ids.shape}")


def kept_rows(where: Array | None, *, n: int, name: str = "where") -> Array:
    """The mask bool [n], all True for `None`.

    Raises:
      TypeError: if it is not boolean.
      ValueError: if its shape is not [n].
    """
    if where is None:
        return jnp.ones(n, bool)
    check_mask(where, shape=(n,), name=name)
    return where


def check_rows(a: Array, b: Array, *, where: Array | None, ids: Array | None) -> Array:
    """The mask of kept rows of two sets of embeddings [n, d] that belong together row by row.

    Raises:
      TypeError: if an embedding is not floating point, `where` not boolean, `ids` not integer.
      ValueError: if a shape does not fit.
    """
    check_floating(a=a, b=b)
    check_rank(2, axes="[n, d]", a=a, b=b)
    check_same_shape(a=a, b=b)
    n = a.shape[0]
    check_ids(ids, shape=(n,))
    return kept_rows(where, n=n)


def check_matrix(x: Array, *, shape: tuple[int, ...], name: str) -> Array:
    """The matrix in at least float32.

    Raises:
      TypeError: if it is not floating point.
      ValueError: if its shape differs.
    """
    check_floating(**{name: x})
    if x.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {x.shape}")
    return x.astype(accumulation_dtype(x))


def check_similarity(
    similarity: Array, *, where: Array | None, ids: Array | None
) -> tuple[Array, Array]:
    """A square matrix in at least float32, and the mask of kept rows.

    Raises:
      TypeError: if it is not floating point, `where` not boolean, `ids` not integer.
      ValueError: if a shape does not fit.
    """
    check_rank(2, axes="[n, n]", similarity=similarity)
    n = similarity.shape[0]
    if similarity.shape[1] != n:
        raise ValueError(f"similarity must be square [n, n], got {similarity.shape}")
    check_ids(ids, shape=(n,))
    return check_matrix(similarity, shape=(n, n), name="similarity"), kept_rows(where, n=n)


def check_modalities(
    embeddings: Sequence[Array],
    presence: Sequence[Array] | None,
    *,
    name: str = "embeddings",
    least: int = 2,
) -> list[Array]:
    """The masks bool [n] of M >= `least` arrays of embeddings [n, d], all True for `None`.

    Raises:
      TypeError: if an array is not floating point or a mask not boolean.
      ValueError: if there are too few, or the number of masks or a shape does not fit.
    """
    if len(embeddings) < least:
        raise ValueError(f"{name} must hold at least {least} modalities, got {len(embeddings)}")
    named = {f"{name}[{m}]": x for m, x in enumerate(embeddings)}
    check_floating(**named)
    check_rank(2, axes="[n, d]", **named)
    check_same_shape(**named)
    n = embeddings[0].shape[0]
    if presence is None:
        return [jnp.ones(n, bool) for _ in embeddings]
    if len(presence) != len(embeddings):
        raise ValueError(f"presence must hold {len(embeddings)} masks, got {len(presence)}")
    for m, mask in enumerate(presence):
        check_mask(mask, shape=(n,), name=f"presence[{m}]")
    return list(presence)


def as_scalar(value: Any, like: Array, *, name: str) -> Array:
    """The value as an array `[]` of the dtype of `like`.

    Raises:
      ValueError: if it is not a scalar.
    """
    scalar = jnp.asarray(value, like.dtype)
    if scalar.ndim != 0:
        raise ValueError(f"{name} must be a scalar, got shape {scalar.shape}")
    return scalar


def as_optional_scalar(value: Any, like: Array, *, name: str) -> Array | None:
    """`as_scalar` of a value that is given, `None` of none.

    Raises:
      ValueError: if it is not a scalar.
    """
    return None if value is None else as_scalar(value, like, name=name)


def same_id(ids: Array | None, *, n: int) -> Array:
    """Bool [n, n], which rows are positives of each other: the diagonal for `None`."""
    if ids is None:
        ids = jnp.arange(n)
    return ids[:, None] == ids[None, :]


def kept_dot_products(a: Array, b: Array, *, rows: Array, columns: Array) -> Array:
    """The dot products [n, m], 0 in the rows and columns that are not kept, whatever they hold."""
    return pairwise_dot_product(jnp.where(rows[:, None], a, 0), jnp.where(columns[:, None], b, 0))
