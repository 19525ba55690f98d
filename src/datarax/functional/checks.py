"""What arguments may be, checked while tracing, and the dtype in which they are reduced."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array


def check_floating(**arrays: Array) -> None:
    """Reject arrays that are not floating point; the keyword is the name used in the message.

    Raises:
      TypeError: if an array holds integers, booleans or complex numbers.

    Example:
      >>> check_floating(a=jnp.zeros(3))
    """
    for name, x in arrays.items():
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"{name} must be floating point, got {x.dtype} of shape {x.shape}")


def check_rank(rank: int, *, axes: str, **arrays: Array) -> None:
    """Reject arrays without exactly `rank` axes; `axes` spells them in the message.

    Raises:
      ValueError: if an array has another number of axes.

    Example:
      >>> check_rank(2, axes="[n, d]", a=jnp.zeros((3, 2)))
    """
    for name, x in arrays.items():
        if x.ndim != rank:
            raise ValueError(f"{name} must have shape {axes}, got {x.shape}")


def check_same_shape(**arrays: Array) -> None:
    """Reject arrays that do not all have one shape.

    Raises:
      ValueError: naming every argument with its shape.

    Example:
      >>> check_same_shape(a=jnp.zeros((3, 2)), b=jnp.ones((3, 2)))
    """
    shapes = {name: x.shape for name, x in arrays.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"expected equal shapes, got {listed}")


def check_mask(mask: Array, *, shape: tuple[int, ...], name: str) -> None:
    """Reject a mask that is not boolean or not of the given shape.

    Raises:
      TypeError: if it is not boolean.
      ValueError: if its shape differs.

    Example:
      >>> check_mask(jnp.array([True, False]), shape=(2,), name="where")
    """
    if mask.dtype != jnp.bool_:
        raise TypeError(f"{name} must be boolean (True = keep), got {mask.dtype}")
    if mask.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {mask.shape}")


def broadcast_mask(mask: Array | None, *, shape: tuple[int, ...], name: str) -> Array:
    """The boolean mask broadcast to `shape` by NumPy's rule; all True for `None`.

    Raises:
      TypeError: if it is not boolean.
      ValueError: if it does not broadcast to `shape`.

    Example:
      >>> broadcast_mask(jnp.array([True, False]), shape=(3, 2), name="where").shape
      (3, 2)
    """
    if mask is None:
        return jnp.ones(shape, bool)
    if mask.dtype != jnp.bool_:
        raise TypeError(f"{name} must be boolean (True = keep), got {mask.dtype}")
    return broadcast_array(mask, shape=shape, name=name)


def broadcast_array(x: Array, *, shape: tuple[int, ...], name: str) -> Array:
    """The array broadcast to `shape` by NumPy's rule, or an error that names it.

    Raises:
      ValueError: if it does not broadcast to `shape`.

    Example:
      >>> broadcast_array(jnp.zeros((3, 1)), shape=(3, 2), name="bias").shape
      (3, 2)
    """
    fits = x.ndim <= len(shape) and all(
        have in (1, want) for have, want in zip(x.shape[::-1], shape[::-1][: x.ndim], strict=True)
    )
    if not fits:
        raise ValueError(f"{name} of shape {x.shape} does not broadcast to {shape}")
    return jnp.broadcast_to(x, shape)


def accumulation_dtype(*arrays: Array) -> Any:
    """float64 if any of the arrays is float64, else float32: what sums and exponentials use.

    Example:
      >>> accumulation_dtype(jnp.zeros(2, jnp.bfloat16)).__name__
      'float32'
    """
    return jnp.float64 if any(x.dtype == jnp.float64 for x in arrays) else jnp.float32


def common_dtype(*arrays: Array) -> tuple[Array, ...]:
    """The arrays unchanged if they share a dtype, else all in `accumulation_dtype`.

    Example:
      >>> a, b = common_dtype(jnp.zeros(2, jnp.bfloat16), jnp.zeros(2))
      >>> a.dtype == b.dtype == jnp.float32
      True
    """
    if len({x.dtype for x in arrays}) == 1:
        return arrays
    wide = accumulation_dtype(*arrays)
    return tuple(x.astype(wide) for x in arrays)
