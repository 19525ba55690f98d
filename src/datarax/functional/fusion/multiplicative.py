r"""Multiplicative interaction: one modality makes the weights through which another goes."""

from typing import Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.checks import accumulation_dtype, broadcast_mask, check_floating

Form = Literal["matrix", "vector", "scalar"]


def multiplicative_interaction(
    x: Num[Array, "*batch n"],
    y: Num[Array, "*other m"],
    *,
    interaction: Num[Array, "..."],
    from_x: Num[Array, "..."],
    from_y: Num[Array, "..."],
    bias: Num[Array, "..."],
    form: Form = "matrix",
    presence: Array | None = None,
) -> Float[Array, "..."]:
    r"""$f(x, y) = W'(x)\,y + b'(x)$ with $W'(x) = x \cdot W + V$ and $b'(x) = x \cdot U + b$.

    Args:
      x: the modality that conditions.
      y: the modality that goes through the weights made from `x`.
      interaction, from_x, from_y, bias: W, U, V and b. For `"matrix"` [n, m, o], [n, o], [m, o]
        and [o]; for `"vector"` (a diagonal $W'$) [n, m], [n, m], [m] and [m]; for `"scalar"`
        [n], [n], [1] and [1].
      form: what $W'(x)$ is: a matrix, the diagonal of one, or one number.
      presence: bool, broadcastable to [..., 2]: whether `x` and `y` are there. An absent one
        counts as 0, which leaves the terms of the other: $V y + b$, or $x \cdot U + b$.

    Returns:
      [..., o], or [..., m] for the last two forms, in the dtype of `y`, computed in at least
      float32; 0 where neither is there. Absent sides reach neither value nor gradient.

    Raises:
      TypeError: if an array is not floating point or `presence` not boolean.
      ValueError: if a shape does not fit, or `form` is unknown.

    Reference: Jayakumar et al., 2020, ICLR (openreview.net/forum?id=rylnK6VtDH), section 3.

    Example:
      >>> numbers = {"interaction": jnp.ones(1), "from_x": jnp.ones(1), "from_y": jnp.ones(1)}
      >>> multiplicative_interaction(
      ...     jnp.array([2.0]), jnp.array([1.0, 3.0]), **numbers, bias=jnp.zeros(1), form="scalar"
      ... )
      Array([ 5., 11.], dtype=float32)
    """
    parameters = {"interaction": interaction, "from_x": from_x, "from_y": from_y, "bias": bias}
    check_floating(x=x, y=y, **parameters)
    _check_shapes(x, y, parameters, form)
    keep = broadcast_mask(presence, shape=(*x.shape[:-1], 2), name="presence")
    wide = accumulation_dtype(x, y)
    x_wide = jnp.where(keep[..., :1], x.astype(wide), 0)
    y_wide = jnp.where(keep[..., 1:], y.astype(wide), 0)
    W, U, V, b = (p.astype(wide) for p in parameters.values())
    if form == "matrix":
        result = jnp.einsum("...n,...m,nmo->...o", x_wide, y_wide, W)
        result = result + jnp.einsum("...n,no->...o", x_wide, U)
        result = result + jnp.einsum("...m,mo->...o", y_wide, V)
        result = result + jnp.broadcast_to(b, result.shape)
    else:
        columns = "nm" if form == "vector" else "n"
        row = "m" if form == "vector" else ""
        scale = jnp.einsum(f"...n,{columns}->...{row}", x_wide, W)
        shift = jnp.einsum(f"...n,{columns}->...{row}", x_wide, U)
        if form == "scalar":
            scale, shift = scale[..., None], shift[..., None]
        scale = scale + jnp.broadcast_to(V, scale.shape)
        shift = shift + jnp.broadcast_to(b, shift.shape)
        result = scale * y_wide + shift
    return jnp.where(jnp.any(keep, axis=-1, keepdims=True), result, 0).astype(y.dtype)


def _check_shapes(x: Array, y: Array, parameters: dict[str, Array], form: str) -> None:
    if form not in get_args(Form):
        raise ValueError(f"form must be one of {list(get_args(Form))}, got {form!r}")
    if x.ndim == 0 or x.shape[:-1] != y.shape[:-1]:
        raise ValueError(f"x and y must share leading axes, got shapes {x.shape} and {y.shape}")
    n, m = x.shape[-1], y.shape[-1]
    out = parameters["bias"].shape[-1:] if form == "matrix" else (m,) if form == "vector" else (1,)
    wanted = {
        "matrix": [(n, m, *out), (n, *out), (m, *out), out],
        "vector": [(n, m), (n, m), (m,), (m,)],
        "scalar": [(n,), (n,), (1,), (1,)],
    }[form]
    for (name, array), shape in zip(parameters.items(), wanted, strict=True):
        if array.shape != shape:
            raise ValueError(f"{name} of form {form!r} must have shape {shape}, got {array.shape}")
