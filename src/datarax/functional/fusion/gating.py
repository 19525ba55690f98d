"""One modality conditions another: it opens or closes its features, or scales and shifts them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.checks import (
    accumulation_dtype,
    broadcast_mask,
    check_floating,
    check_same_shape,
)


def gated_product(
    gate_logits: Num[Array, "*batch d"],
    values: Num[Array, "*values"],
    *,
    presence: Array | None = None,
) -> Float[Array, "*batch d"]:
    r"""$y = \sigma(g) \odot v$; an absent side is replaced by ones, the multiplicative identity.

    Args:
      gate_logits: $g = W_x x + c_x$, from the modality that gates.
      values: $v = W_y y + c_y$, from the modality that is gated, in the shape of `gate_logits`.
      presence: bool, broadcastable to [..., 2]: whether the gating and the gated modality are
        there.

    Returns:
      The product in the dtype of `values`, computed in at least float32: $v$ without the gating
      modality, $\sigma(g)$ without the gated one, 0 without both. Absent sides reach neither value
      nor gradient.

    Raises:
      TypeError: if an array is not floating point or `presence` not boolean.
      ValueError: if the shapes differ or `presence` does not fit.

    Reference: Kiela et al., 2018, arXiv:1802.02892, section 3.3.

    Example:
      >>> gated_product(jnp.zeros(2), jnp.array([1.0, 4.0]))
      Array([0.5, 2. ], dtype=float32)
    """
    check_floating(gate_logits=gate_logits, values=values)
    check_same_shape(gate_logits=gate_logits, values=values)
    has_gate, has_values = _sides(presence, gate_logits)
    wide = accumulation_dtype(gate_logits, values)
    gate = jax.nn.sigmoid(jnp.where(has_gate, gate_logits.astype(wide), 0))
    product = jnp.where(has_gate, gate, 1) * jnp.where(has_values, values.astype(wide), 1)
    return jnp.where(has_gate | has_values, product, 0).astype(values.dtype)


def feature_modulation(
    scale: Num[Array, "*batch d"],
    shift: Num[Array, "*shift"],
    features: Num[Array, "*features"],
    *,
    presence: Array | None = None,
) -> Float[Array, "*batch d"]:
    r"""Feature-wise linear modulation, $y = \gamma \odot h + \beta$.

    Args:
      scale: $\gamma$, from the modality that conditions.
      shift: $\beta$, from the modality that conditions, in the shape of `scale`.
      features: $h$, the modality that is conditioned, in the shape of `scale`.
      presence: bool, broadcastable to [..., 2]: whether the conditioning and the conditioned
        modality are there.

    Returns:
      The sum in the dtype of `features`, computed in at least float32: $h$, unmodulated, without
      the conditioning modality ($\gamma = 1$, $\beta = 0$), $\beta$ without the conditioned one
      ($h = 0$), 0 without both. Absent sides reach neither value nor gradient.

    Raises:
      TypeError: if an array is not floating point or `presence` not boolean.
      ValueError: if the shapes differ or `presence` does not fit.

    Reference: Perez et al., 2018, arXiv:1709.07871, equation 2.

    Example:
      >>> feature_modulation(jnp.array([2.0]), jnp.array([1.0]), jnp.array([3.0]))
      Array([7.], dtype=float32)
    """
    check_floating(scale=scale, shift=shift, features=features)
    check_same_shape(scale=scale, shift=shift, features=features)
    conditioned, has_features = _sides(presence, features)
    wide = accumulation_dtype(scale, shift, features)
    gamma = jnp.where(conditioned, scale.astype(wide), 1)
    beta = jnp.where(conditioned, shift.astype(wide), 0)
    return (gamma * jnp.where(has_features, features.astype(wide), 0) + beta).astype(features.dtype)


def _sides(presence: Array | None, x: Array) -> tuple[Array, Array]:
    keep = broadcast_mask(presence, shape=(*x.shape[:-1], 2), name="presence")
    return keep[..., :1], keep[..., 1:]
