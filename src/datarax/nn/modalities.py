"""The modalities of a record as the fusions take them: arrays [..., d_m] and who is there [...]."""

from collections.abc import Iterable, Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Num

from datarax.functional.checks import check_floating, check_mask
from datarax.nn.linear import Linear

Inputs = Sequence[Num[Array, "..."]]
Presence = Sequence[Array] | None


def check_widths(
    in_features: Sequence[int], *, at_least: int = 1, at_most: int | None = None, name: str = ""
) -> tuple[int, ...]:
    """The widths as a tuple, if there are as many as a fusion can take.

    Raises:
      ValueError: with the number that is wanted and the number that came.

    Example:
      >>> check_widths([2, 3])
      (2, 3)
    """
    widths = tuple(in_features)
    if not widths:
        raise ValueError("in_features must name at least one modality, got none")
    if at_most == at_least != len(widths):
        raise ValueError(f"{name} takes exactly {at_least} modalities, got {len(widths)}")
    if len(widths) < at_least:
        raise ValueError(f"{name} takes at least {at_least} modalities, got {len(widths)}")
    return widths


def check_inputs(
    inputs: Inputs, presence: Presence, in_features: Sequence[int | None], *, tokens: bool = False
) -> None:
    """Reject inputs that are not one floating array a modality, or masks that do not fit them.

    Args:
      inputs: [..., d_m], or with `tokens` [..., t_m, d_m].
      presence: bool [...] for each.
      in_features: the widths; `None` for one that is not known.
      tokens: the axis before the features is one of tokens, which may differ in length.

    Raises:
      TypeError: for inputs that are not floating point or differ in dtype, masks not boolean.
      ValueError: for a wrong number of arrays or masks, or shapes that do not fit.
    """
    if len(inputs) != len(in_features):
        raise ValueError(f"inputs must hold {len(in_features)} arrays, got {len(inputs)}")
    check_floating(**{f"inputs[{m}]": x for m, x in enumerate(inputs)})
    if len({x.dtype for x in inputs}) > 1:
        raise TypeError(f"inputs must share a dtype, got {[str(x.dtype) for x in inputs]}")
    axes = 2 if tokens else 1
    for m, (x, width) in enumerate(zip(inputs, in_features, strict=True)):
        if x.ndim < axes or (width is not None and x.shape[-1] != width):
            spelt = f"[..., tokens, {width}]" if tokens else f"[..., {width or 'd'}]"
            raise ValueError(f"inputs[{m}] must have shape {spelt}, got {x.shape}")
        if x.shape[:-axes] != inputs[0].shape[:-axes]:
            raise ValueError(f"inputs must share leading axes, got {[x.shape for x in inputs]}")
    if presence is None:
        return
    if len(presence) != len(inputs):
        raise ValueError(f"presence must hold {len(inputs)} masks, got {len(presence)}")
    for m, mask in enumerate(presence):
        check_mask(mask, shape=inputs[0].shape[:-axes], name=f"presence[{m}]")


def zero_absent(inputs: Inputs, presence: Presence) -> list[Array]:
    """Zeros for what is absent, before any arithmetic: NaN would reach a kernel's gradient."""
    if presence is None:
        return list(inputs)
    return [jnp.where(mask[..., None], x, 0) for mask, x in zip(presence, inputs, strict=True)]


def project(layers: Iterable[Linear], inputs: Inputs, presence: Presence) -> list[Array]:
    """Each modality through its own map, absent ones as zeros."""
    return [layer(x) for layer, x in zip(layers, zero_absent(inputs, presence), strict=True)]


def stack(inputs: Sequence[Array]) -> Array:
    """Arrays of one shape as [..., m, d]."""
    return jnp.stack(inputs, axis=-2)


def stack_presence(presence: Presence) -> Array | None:
    """The masks as [..., m]."""
    return None if presence is None else jnp.stack(presence, axis=-1)


def zero_where_empty(fused: Array, presence: Presence) -> Array:
    """Exactly 0 for records of which nothing is there: a bias would make them nonzero."""
    if presence is None:
        return fused
    return jnp.where(jnp.any(jnp.stack(presence), axis=0)[..., None], fused, 0)


def linears(in_features: Sequence[int], out_features: int, rngs: nnx.Rngs) -> list[Linear]:
    """One map a modality, all to one width."""
    return [Linear(width, out_features, rngs=rngs) for width in in_features]
