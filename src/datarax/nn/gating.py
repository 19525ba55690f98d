"""Fusions of two modalities in which one conditions the other: a sigmoid gate, or FiLM.

Kernels are [in, out]. `condition` is the position of the modality that conditions.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from datarax.functional.fusion.gating import feature_modulation, gated_product
from datarax.nn.linear import Linear
from datarax.nn.modalities import (
    Inputs,
    Presence,
    check_inputs,
    check_widths,
    project,
    zero_absent,
    zero_where_empty,
)


class SigmoidGateFusion(nnx.Module):
    r"""$y = W\big(\sigma(W_x x + c_x) \odot (W_y y + c_y)\big) + c$, x being what conditions.

    Args:
      in_features: the widths of the two modalities.
      out_features: the width of the result.
      hidden_features: the width of the gate; `None`: `out_features`.
      condition: which of the two makes the gate, 0 or 1 (OGM-GE's `x_gate` is 0).
      rngs: the stream `params` draws the kernels.

    Parameters: `projections[m]` (kernel [d_m, hidden], bias) and `output` (kernel [hidden, out],
    bias). An absent side is replaced by ones; a record with neither gives 0.

    Example:
      >>> SigmoidGateFusion((2, 3), 4, rngs=nnx.Rngs(0))([jnp.ones(2), jnp.ones(3)]).shape
      (4,)
    """

    def __init__(
        self,
        in_features: Sequence[int],
        out_features: int,
        *,
        hidden_features: int | None = None,
        condition: int = 0,
        rngs: nnx.Rngs,
    ) -> None:
        self.in_features = check_widths(in_features, at_least=2, at_most=2, name="the gate")
        self.condition = _check_condition(condition)
        hidden = out_features if hidden_features is None else hidden_features
        self.projections = nnx.List([Linear(d, hidden, rngs=rngs) for d in self.in_features])
        self.output = Linear(hidden, out_features, rngs=rngs)

    def __call__(self, inputs: Inputs, presence: Presence = None) -> Float[Array, "..."]:
        """The fused vector; see `functional.gated_product`."""
        check_inputs(inputs, presence, self.in_features)
        hidden = project(self.projections, inputs, presence)
        x, y = self.condition, 1 - self.condition
        product = gated_product(hidden[x], hidden[y], presence=_sides(presence, x, y))
        return zero_where_empty(self.output(product), presence)


class FiLMFusion(nnx.Module):
    r"""$z = W(\gamma \odot y + \beta) + c$ with $[\gamma; \beta] = F x + f$.

    x is what conditions. The bias of $\gamma$ starts at 1, so that at the start $y$ comes through.

    Args:
      in_features: the widths of the two modalities.
      out_features: the width of the result.
      condition: which of the two conditions the other, 0 or 1 (OGM-GE's `x_film` is 0).
      rngs: the stream `params` draws the kernels.

    Parameters: `film` (kernel [d_x, 2 d_y], bias; $\gamma$ first), `output` (kernel [d_y, out],
    bias). Without x, y is not modulated; without y, it counts as 0; with neither the result is 0.

    Example:
      >>> FiLMFusion((2, 3), 4, rngs=nnx.Rngs(0))([jnp.ones(2), jnp.ones(3)]).shape
      (4,)
    """

    def __init__(
        self,
        in_features: Sequence[int],
        out_features: int,
        *,
        condition: int = 0,
        rngs: nnx.Rngs,
    ) -> None:
        self.in_features = check_widths(in_features, at_least=2, at_most=2, name="FiLM")
        self.condition = _check_condition(condition)
        width = self.in_features[1 - condition]
        self.film = Linear(self.in_features[condition], 2 * width, rngs=rngs)
        if self.film.bias is not None:
            self.film.bias[...] = jnp.concatenate([jnp.ones(width), jnp.zeros(width)])
        self.output = Linear(width, out_features, rngs=rngs)

    def __call__(self, inputs: Inputs, presence: Presence = None) -> Float[Array, "..."]:
        """The fused vector; see `functional.feature_modulation`."""
        check_inputs(inputs, presence, self.in_features)
        kept = zero_absent(inputs, presence)
        x, y = self.condition, 1 - self.condition
        scale, shift = jnp.split(self.film(kept[x]), 2, axis=-1)
        modulated = feature_modulation(scale, shift, kept[y], presence=_sides(presence, x, y))
        return zero_where_empty(self.output(modulated), presence)


def _check_condition(condition: int) -> int:
    if condition not in (0, 1):
        raise ValueError(f"condition must be 0 or 1, the position of a modality, got {condition}")
    return condition


def _sides(presence: Presence, x: int, y: int) -> Array | None:
    return None if presence is None else jnp.stack([presence[x], presence[y]], axis=-1)
