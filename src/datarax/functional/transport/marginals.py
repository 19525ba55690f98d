"""Weights, masks and scale of a transport problem, checked and made harmless."""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from datarax.functional.checks import (
    accumulation_dtype,
    broadcast_mask,
    check_floating,
    check_mask,
    check_rank,
)
from datarax.functional.transport.costs import Cost, PointCost, keep_cost

Regulariser = Literal["kl", "entropy"]


def vector_mask(mask: Array | None, size: int, *, name: str) -> Array:
    """The boolean mask [size]; all True for `None`.

    Raises:
      TypeError: if it is not boolean.
      ValueError: if its shape differs.

    Example:
      >>> vector_mask(None, 2, name="a_mask").tolist()
      [True, True]
    """
    if mask is not None:
        check_mask(mask, shape=(size,), name=name)
    return broadcast_mask(mask, shape=(size,), name=name)


def weights_of(weights: Array | None, keep: Array, *, dtype: Any, name: str) -> Array:
    """The weights, 0 where not kept; without any the kept share 1.

    A kept weight that is negative, inf or NaN is refused; a traced one, whose value is not known
    yet, becomes NaN.

    Raises:
      TypeError: if they are not floating point.
      ValueError: if their shape is not that of `keep`, or if one is negative, inf or NaN.

    Example:
      >>> weights_of(None, jnp.array([True, False, True]), dtype=jnp.float32, name="a").tolist()
      [0.5, 0.0, 0.5]
    """
    if weights is None:
        return keep.astype(dtype) / jnp.maximum(jnp.sum(keep, dtype=dtype), 1)
    check_floating(**{name: weights})
    if weights.shape != keep.shape:
        raise ValueError(f"{name} must have shape {keep.shape}, got {weights.shape}")
    if _known(weights) and _known(keep):
        kept = np.asarray(weights, np.float64)[np.asarray(keep)]
        wrong = kept[~((kept >= 0) & (kept < np.inf))]
        if wrong.size:
            raise ValueError(f"{name} must be finite and at least 0, got {wrong[0]}")
    weights = weights.astype(dtype)
    fine = (weights >= 0) & (weights < jnp.inf)
    return jnp.where(keep, jnp.where(fine, weights, jnp.nan), 0)


def _known(x: Array) -> bool:
    """Whether the values can be looked at: neither traced nor held by other processes."""
    return not isinstance(x, jax.core.Tracer) and (
        not isinstance(x, jax.Array) or x.is_fully_addressable
    )


def marginals(
    cost: Cost, a: Array | None, b: Array | None, *, a_mask: Array | None, b_mask: Array | None
) -> tuple[Cost, Array, Array]:
    """The cost, 0 where a row or column is missing, and both weights; 0 if either side is empty.

    Raises:
      TypeError: if cost or weights are not floating point or a mask not boolean.
      ValueError: if shapes do not fit.

    Example:
      >>> cost = jnp.array([[2.0, jnp.nan]])
      >>> [x.tolist() for x in marginals(
      ...     cost, None, None, a_mask=None, b_mask=jnp.array([True, False])
      ... )]
      [[[2.0, 0.0]], [1.0], [1.0, 0.0]]
    """
    if not isinstance(cost, PointCost):
        check_floating(cost=cost)
        check_rank(2, axes="[n, m]", cost=cost)
    known = cost.rows if isinstance(cost, PointCost) else cost
    wide = accumulation_dtype(known, *(x for x in (a, b) if x is not None))
    masks = [
        vector_mask(mask, size, name=name)
        for mask, size, name in zip((a_mask, b_mask), cost.shape, ("a_mask", "b_mask"), strict=True)
    ]
    first = weights_of(a, masks[0], dtype=wide, name="a")
    second = weights_of(b, masks[1], dtype=wide, name="b")
    both = jnp.any(~(first <= 0)) & jnp.any(~(second <= 0))  # NaN stays
    first, second = jnp.where(both, first, 0), jnp.where(both, second, 0)
    return keep_cost(cost, first, second), first, second


def positive_scalar(
    value: Any, *, name: str, like: Array | PointCost, unit: Array | None = None
) -> Array:
    """A positive number in the dtype of an array, times a unit (times 1 where the unit is 0).

    Raises:
      ValueError: if it is a number that is not positive (a traced one is not looked at), or no
        scalar.

    Example:
      >>> float(positive_scalar(0.5, name="epsilon", like=jnp.zeros(1), unit=jnp.array(4.0)))
      2.0
    """
    if isinstance(value, int | float | np.number) and not float(value) > 0:
        raise ValueError(f"{name} must be positive, got {value}")
    scalar = jnp.asarray(value, like.dtype)
    if scalar.ndim:
        raise ValueError(f"{name} must be a scalar, got shape {scalar.shape}")
    return scalar if unit is None else scalar * jnp.where(unit > 0, unit, 1)


def reference_measure(a: Array, b: Array, regulariser: str) -> tuple[Array, Array]:
    """The factors of the measure that a plan is regularised towards: the weights, or their support.

    Raises:
      ValueError: if the regulariser is unknown.

    Example:
      >>> [x.tolist() for x in reference_measure(jnp.array([0.5, 0.0]), jnp.ones(1), "entropy")]
      [[1.0, 0.0], [1.0]]
    """
    if regulariser not in get_args(Regulariser):
        raise ValueError(
            f"regulariser must be one of {list(get_args(Regulariser))}, got {regulariser!r}"
        )
    return (a, b) if regulariser == "kl" else ((a > 0).astype(a.dtype), (b > 0).astype(b.dtype))
