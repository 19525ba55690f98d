"""Sequences of tokens of which some are padding."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Num

from datarax.functional.checks import check_floating, check_mask


def token_mask(mask: Array | None, tokens: Array, *, name: str) -> Array:
    """Which tokens [..., t, d] are there: the mask bool [..., t], all for `None`.

    Raises:
      TypeError: if the mask is not boolean.
      ValueError: if its shape differs.

    Example:
      >>> token_mask(None, jnp.zeros((2, 3)), name="mask")
      Array([ True,  True], dtype=bool)
    """
    if mask is None:
        return jnp.ones(tokens.shape[:-1], bool)
    check_mask(mask, shape=tokens.shape[:-1], name=name)
    return mask


def keep_tokens(tokens: Array, mask: Array) -> Array:
    """The tokens [..., t, d] with zeros, and gradient 0, where the mask [..., t] is False.

    Example:
      >>> keep_tokens(jnp.array([[1.0], [jnp.nan]]), jnp.array([True, False]))
      Array([[1.],
             [0.]], dtype=float32)
    """
    return jnp.where(mask[..., None], tokens, 0)


def modality_tokens(
    tokens: Sequence[Num[Array, "..."]],
    masks: Sequence[Array | None] | None,
    in_features: Sequence[int],
) -> tuple[list[Array], list[Array]]:
    """The tokens [..., t_m, d_m] of each modality, masked ones as zeros, and their masks.

    Raises:
      TypeError: if tokens are not floating point or differ in dtype, or masks not boolean.
      ValueError: if numbers or shapes do not fit.

    Example:
      >>> tokens, masks = modality_tokens([jnp.ones((2, 3))], None, [3])
      >>> masks
      [Array([ True,  True], dtype=bool)]
    """
    count = len(in_features)
    if len(tokens) != count or (masks is not None and len(masks) != count):
        raise ValueError(
            f"expected {count} arrays of tokens and as many masks, got {len(tokens)} "
            f"and {None if masks is None else len(masks)}"
        )
    check_floating(**{f"tokens[{m}]": x for m, x in enumerate(tokens)})
    if len({x.dtype for x in tokens}) > 1:
        raise TypeError(f"tokens must share a dtype, got {[str(x.dtype) for x in tokens]}")
    for x, width in zip(tokens, in_features, strict=True):
        if x.ndim < 2 or x.shape[-1] != width or x.shape[:-2] != tokens[0].shape[:-2]:
            raise ValueError(
                f"expected tokens [..., t_m, d_m] of widths {tuple(in_features)} with equal "
                f"leading axes, got {[x.shape for x in tokens]}"
            )
    given = [None] * count if masks is None else masks
    there = [
        token_mask(mask, x, name=f"masks[{m}]")
        for m, (mask, x) in enumerate(zip(given, tokens, strict=True))
    ]
    return [keep_tokens(x, mask) for x, mask in zip(tokens, there, strict=True)], there
