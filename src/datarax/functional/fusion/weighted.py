"""Many modalities of one record into one vector, whichever of them are there.

The modalities are stacked on the axis before the features: [..., m, d], presence [..., m].
"""

from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.checks import (
    accumulation_dtype,
    broadcast_array,
    broadcast_mask,
    check_floating,
    check_mask,
)
from datarax.functional.masking import masked_softmax

Gate = Literal["softmax", "sigmoid"]


def weighted_sum(
    inputs: Num[Array, "*batch m d"], weights: Num[Array, "..."], *, presence: Array | None = None
) -> Float[Array, "*batch d"]:
    r"""$y = \sum_m p_m w_m x_m$ over the modalities that are there; not divided by the weights.

    Args:
      inputs: modalities stacked on the axis before the features.
      weights: one weight a modality, broadcastable to [..., m].
      presence: bool, broadcastable to [..., m], True where the modality is there.

    Returns:
      The sum in the dtype of `inputs`, accumulated in at least float32; 0 where nothing is there.
      What an absent slot holds, NaN included, reaches neither value nor gradient.

    Raises:
      TypeError: if an array is not floating point or `presence` not boolean.
      ValueError: if `weights` or `presence` does not fit [..., m].

    Example:
      >>> weighted_sum(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([1.0, 10.0]))
      Array([31., 42.], dtype=float32)
    """
    check_floating(inputs=inputs, weights=weights)
    _check_stack(inputs)
    keep = broadcast_mask(presence, shape=inputs.shape[:-1], name="presence")
    weights = broadcast_array(weights, shape=inputs.shape[:-1], name="weights")
    return _sum(inputs, weights, keep)


def attention_weighted_sum(
    inputs: Num[Array, "*batch m d"], scores: Num[Array, "..."], *, presence: Array | None = None
) -> Float[Array, "*batch d"]:
    r"""$y = \sum_m w_m x_m$ with $w = \mathrm{softmax}_m(s)$ over the modalities that are there.

    Args:
      inputs: modalities stacked on the axis before the features.
      scores: one logit a modality, broadcastable to [..., m].
      presence: bool, broadcastable to [..., m], True where the modality is there.

    Returns:
      The mean in the dtype of `inputs`, accumulated in at least float32; 0 where nothing is there.
      What an absent slot holds (its score too) reaches neither value nor gradient.

    Raises:
      TypeError: if an array is not floating point or `presence` not boolean.
      ValueError: if `scores` or `presence` does not fit [..., m].

    Reference: Bahdanau et al., 2015, arXiv:1409.0473, equations 5 and 6 (over modalities).

    Example:
      >>> inputs = jnp.array([[1.0, 2.0], [3.0, 4.0]])
      >>> attention_weighted_sum(inputs, jnp.zeros(2), presence=jnp.array([False, True]))
      Array([3., 4.], dtype=float32)
    """
    check_floating(inputs=inputs, scores=scores)
    _check_stack(inputs)
    keep = broadcast_mask(presence, shape=inputs.shape[:-1], name="presence")
    scores = broadcast_array(scores, shape=inputs.shape[:-1], name="scores")
    weights = masked_softmax(scores.astype(accumulation_dtype(inputs, scores)), where=keep)
    return _sum(inputs, weights, keep)


def gated_sum(
    hidden: Num[Array, "*batch m d"],
    gate_logits: Num[Array, "*gates"],
    *,
    presence: Array | None = None,
    gate: Gate = "softmax",
) -> Float[Array, "*batch d"]:
    r"""Gated multimodal unit, $y = \sum_m z_m \odot \tanh(h_m)$ over what is there.

    Args:
      hidden: $h_m = W_m x_m$, stacked on the axis before the features.
      gate_logits: $g_m$, one logit a modality and feature, the shape of `hidden`.
      presence: bool, broadcastable to [..., m], True where the modality is there.
      gate: `"softmax"`: $z = \mathrm{softmax}_m(g)$, the paper's bimodal unit ($z$ and $1 - z$) for
        any m, in which the modalities that are there share the gate; `"sigmoid"`: $z = \sigma(g)$,
        the paper's unit for more than two.

    Returns:
      The sum in the dtype of `hidden`, accumulated in at least float32, in [-1, 1] for
      `"softmax"`; 0 where nothing is there. Absent slots reach neither value nor gradient.

    Raises:
      TypeError: if an array is not floating point or `presence` not boolean.
      ValueError: if the shapes differ, `presence` does not fit, or `gate` is unknown.

    Reference: Arevalo et al., 2017, arXiv:1702.01992, section 3.1.

    Example:
      >>> round(float(gated_sum(jnp.ones((2, 1)), jnp.zeros((2, 1)))[0]), 4)
      0.7616
    """
    check_floating(hidden=hidden, gate_logits=gate_logits)
    _check_stack(hidden)
    if gate not in get_args(Gate):
        raise ValueError(f"gate must be one of {list(get_args(Gate))}, got {gate!r}")
    if hidden.shape != gate_logits.shape:
        raise ValueError(
            f"gate_logits must have the shape of hidden {hidden.shape}, got {gate_logits.shape}"
        )
    keep = broadcast_mask(presence, shape=hidden.shape[:-1], name="presence")[..., None]
    wide = accumulation_dtype(hidden, gate_logits)
    # Zeroed before tanh and sigmoid: their derivatives at NaN would outlive a where after them.
    candidates = jnp.tanh(jnp.where(keep, hidden.astype(wide), 0))
    logits = jnp.where(keep, gate_logits.astype(wide), 0)
    if gate == "softmax":
        gates = masked_softmax(logits, where=keep, axis=-2)
    else:
        gates = jax.nn.sigmoid(logits)
    return jnp.sum(jnp.where(keep, gates * candidates, 0), axis=-2).astype(hidden.dtype)


def masked_concatenate(
    inputs: Sequence[Num[Array, "..."]], *, presence: Sequence[Array] | None = None
) -> Float[Array, "..."]:
    r"""$[x_1; \dots; x_M]$ along the features, with zeros for the modalities that are absent.

    Args:
      inputs: at least one array [..., d_m]; widths may differ, leading shapes and dtypes may not.
      presence: for each input bool [...], True where it is there; `None`: all are.

    Returns:
      [..., d_1 + ... + d_M]. Absent slots reach neither value nor gradient.

    Raises:
      TypeError: if an input is not floating point, the dtypes differ, or a mask is not boolean.
      ValueError: if `inputs` is empty, leading shapes differ, or a mask does not fit.

    Example:
      >>> masked_concatenate(
      ...     [jnp.ones(2), jnp.full(1, jnp.nan)], presence=[jnp.array(True), jnp.array(False)]
      ... )
      Array([1., 1., 0.], dtype=float32)
    """
    if len(inputs) == 0:
        raise ValueError("inputs must hold at least one array, got none")
    check_floating(**{f"inputs[{m}]": x for m, x in enumerate(inputs)})
    if len({x.dtype for x in inputs}) > 1:
        raise TypeError(f"inputs must share a dtype, got {[str(x.dtype) for x in inputs]}")
    if len({x.shape[:-1] for x in inputs}) > 1:
        raise ValueError(f"inputs must share leading axes, got shapes {[x.shape for x in inputs]}")
    if presence is not None:
        if len(presence) != len(inputs):
            raise ValueError(f"presence must hold {len(inputs)} masks, got {len(presence)}")
        for m, mask in enumerate(presence):
            check_mask(mask, shape=inputs[0].shape[:-1], name=f"presence[{m}]")
        inputs = [
            jnp.where(mask[..., None], x, 0) for x, mask in zip(inputs, presence, strict=True)
        ]
    return jnp.concatenate(inputs, axis=-1)


def _sum(inputs: Array, weights: Array, keep: Array) -> Array:
    """Weighted sum over the modality axis with absent slots zeroed on both sides of the product."""
    wide = accumulation_dtype(inputs, weights)
    kept = jnp.where(keep[..., None], inputs.astype(wide), 0)
    factors = jnp.where(keep, weights.astype(wide), 0)
    return jnp.sum(kept * factors[..., None], axis=-2).astype(inputs.dtype)


def _check_stack(inputs: Array) -> None:
    if inputs.ndim < 2:
        raise ValueError(f"modalities must be stacked as [..., m, d], got shape {inputs.shape}")
