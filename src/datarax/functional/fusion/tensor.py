r"""Tensor fusion: the outer product of the modalities, each with a constant 1 before its features.

The constant keeps the products of fewer modalities, so an absent one is the vector $[1; 0]$.
"""

from collections.abc import Sequence
from functools import reduce

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.checks import accumulation_dtype, check_floating, check_mask


def outer_product(
    inputs: Sequence[Num[Array, "..."]], *, presence: Sequence[Array] | None = None
) -> Float[Array, "..."]:
    r"""$\mathrm{vec}\big(\bigotimes_m [1; x_m]\big)$, the last modality's index running fastest.

    Args:
      inputs: at least two arrays [..., d_m]; widths may differ, leading shapes and dtypes may not.
      presence: for each input bool [...], True where it is there; `None`: all are.

    Returns:
      [..., (d_1 + 1) ... (d_M + 1)] in the dtype of the inputs: its first entry is 1, and every
      product with a feature of an absent modality 0; all 0 where nothing is there. Absent slots
      reach neither value nor gradient.

    Raises:
      TypeError: if an input is not floating point, the dtypes differ, or a mask is not boolean.
      ValueError: for fewer than two inputs, other leading shapes, or a mask that does not fit.

    Reference: Zadeh et al., 2017, arXiv:1707.07250, equation 5.

    Example:
      >>> outer_product([jnp.array([2.0]), jnp.array([3.0, 5.0])])
      Array([ 1.,  3.,  5.,  2.,  6., 10.], dtype=float32)
    """
    kept = _check(inputs, presence)
    wide = accumulation_dtype(*inputs)

    def product(x: Array, y: Array) -> Array:
        outer = x[..., :, None] * y[..., None, :]
        return outer.reshape(*outer.shape[:-2], -1)

    tensor = reduce(product, (_with_one(x.astype(wide)) for x in kept))
    return _zero_where_empty(tensor, presence).astype(inputs[0].dtype)


def low_rank_tensor(
    inputs: Sequence[Num[Array, "..."]],
    factors: Sequence[Num[Array, "..."]],
    *,
    weights: Num[Array, "..."] | None = None,
    bias: Num[Array, "..."] | None = None,
    presence: Sequence[Array] | None = None,
) -> Float[Array, "..."]:
    r"""$y = \sum_r w_r \bigodot_m [1; x_m]^\top F_m^{(r)} + c$, the outer product never formed.

    It is the linear map of `outer_product` whose weight tensor is
    $\sum_r w_r \bigotimes_m F_m^{(r)}$.

    Args:
      inputs: at least two arrays [..., d_m]; widths may differ, leading shapes and dtypes may not.
      factors: for each input [r, d_m + 1, o]; row 0 meets the constant.
      weights: w, of the ranks; ones for `None`.
      bias: c; nothing for `None`.
      presence: for each input bool [...], True where it is there; `None`: all are.

    Returns:
      [..., o] in the dtype of the inputs, computed in at least float32; 0 where nothing is there.
      Absent slots reach neither value nor gradient.

    Raises:
      TypeError: if an input is not floating point, the dtypes differ, or a mask is not boolean.
      ValueError: as `outer_product`, or if a factor, the weights or the bias do not fit.

    Reference: Liu et al., 2018, arXiv:1806.00064, equation 7.

    Example:
      >>> inputs = [jnp.array([2.0]), jnp.array([3.0, 5.0])]
      >>> low_rank_tensor(inputs, [jnp.ones((1, 2, 1)), jnp.ones((1, 3, 1))])
      Array([27.], dtype=float32)
    """
    kept = _check(inputs, presence)
    _check_factors(inputs, factors)
    rank, _, out = factors[0].shape
    for name, x, shape in (("weights", weights, (rank,)), ("bias", bias, (out,))):
        if x is not None and x.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {x.shape}")
    wide = accumulation_dtype(*inputs)
    terms = [
        jnp.einsum("...i,rio->...ro", _with_one(x.astype(wide)), factor.astype(wide))
        for x, factor in zip(kept, factors, strict=True)
    ]
    w = jnp.ones(rank, wide) if weights is None else weights.astype(wide)
    y = jnp.einsum("...ro,r->...o", reduce(jnp.multiply, terms), w)
    if bias is not None:
        y = y + jnp.broadcast_to(bias.astype(wide), y.shape)
    return _zero_where_empty(y, presence).astype(inputs[0].dtype)


def _check(inputs: Sequence[Array], presence: Sequence[Array] | None) -> list[Array]:
    """The inputs with zeros for what is absent, if they fit together."""
    if len(inputs) < 2:
        raise ValueError(f"inputs must hold at least 2 modalities, got {len(inputs)}")
    check_floating(**{f"inputs[{m}]": x for m, x in enumerate(inputs)})
    if len({x.dtype for x in inputs}) > 1:
        raise TypeError(f"inputs must share a dtype, got {[str(x.dtype) for x in inputs]}")
    if len({x.shape[:-1] for x in inputs}) > 1:
        raise ValueError(f"inputs must share leading axes, got shapes {[x.shape for x in inputs]}")
    if presence is None:
        return list(inputs)
    if len(presence) != len(inputs):
        raise ValueError(f"presence must hold {len(inputs)} masks, got {len(presence)}")
    for m, mask in enumerate(presence):
        check_mask(mask, shape=inputs[0].shape[:-1], name=f"presence[{m}]")
    return [jnp.where(mask[..., None], x, 0) for mask, x in zip(presence, inputs, strict=True)]


def _check_factors(inputs: Sequence[Array], factors: Sequence[Array]) -> None:
    if len(factors) != len(inputs):
        raise ValueError(f"factors must hold {len(inputs)} arrays, got {len(factors)}")
    if factors[0].ndim != 3:
        raise ValueError(f"factors[0] must have shape [rank, d + 1, out], got {factors[0].shape}")
    rank, _, out = factors[0].shape
    for m, (x, factor) in enumerate(zip(inputs, factors, strict=True)):
        shape = (rank, x.shape[-1] + 1, out)
        if factor.shape != shape:
            raise ValueError(f"factors[{m}] must have shape {shape}, got {factor.shape}")


def _with_one(x: Array) -> Array:
    return jnp.concatenate([jnp.ones((*x.shape[:-1], 1), x.dtype), x], axis=-1)


def _zero_where_empty(y: Array, presence: Sequence[Array] | None) -> Array:
    if presence is None:
        return y
    return jnp.where(jnp.any(jnp.stack(presence), axis=0)[..., None], y, 0)
