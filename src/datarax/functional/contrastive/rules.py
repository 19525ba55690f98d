"""Parts of a `custom_vjp` rule that skips what is not differentiated (`symbolic_zeros`)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero
from jaxtyping import Array


@jax.tree_util.register_static
@dataclass(frozen=True)
class Sides:
    """What is differentiated: static, though it travels with the residuals."""

    x: bool
    y: bool
    scale: bool


def values_of(primals: Any) -> Any:
    """The arrays of a tree of primals with the mark whether they are differentiated."""
    return jax.tree.map(
        lambda p: p.value, primals, is_leaf=lambda p: isinstance(p, CustomVJPPrimal)
    )


def as_arrays(residuals: Any) -> Any:
    """The residuals: a constant of the program comes back as NumPy's."""
    return jax.tree.map(jnp.asarray, residuals)


def dense_cotangent(cotangent: Any) -> Any:
    """The cotangent of an output, zeros for one that is not used, `None` for none."""
    if isinstance(cotangent, SymbolicZero):
        return jnp.zeros(cotangent.shape, cotangent.dtype)
    return cotangent


def level_of(g: Array, rows: Array | None) -> tuple[Array, Array]:
    """The cotangent of the rows that are there, and whether they have but one.

    A constant: what is formed with it owes its derivative in g to `slope_alone`.
    """
    g = jax.lax.stop_gradient(g)
    here = jnp.ones(g.shape, bool) if rows is None else rows
    top = jnp.max(g, initial=-jnp.inf, where=here)
    return jnp.where(jnp.any(here), top, 0), jnp.all((g == top) | ~here)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def slope_alone(linear: Callable[[Array, Any], Any], g: Array, others: Any) -> Any:
    """Zeros, with the derivative in g of `linear(g, others)`, which is linear in g."""
    like = jax.eval_shape(linear, g, others)
    return jax.tree.map(lambda x: jnp.zeros_like(g, shape=x.shape, dtype=x.dtype), like)


@slope_alone.defjvp
def _slope_alone(
    linear: Callable[[Array, Any], Any], primals: tuple, tangents: tuple
) -> tuple[Any, Any]:
    return slope_alone(linear, *primals), linear(tangents[0], primals[1])


def as_cotangent(gradient: Array | None, primal: Array, *, wanted: bool) -> Array | None:
    """The gradient in the dtype of its primal, `None` for one that is not differentiated."""
    return gradient.astype(primal.dtype) if wanted and gradient is not None else None
