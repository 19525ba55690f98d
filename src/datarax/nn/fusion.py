"""Learned fusions of a record's modalities, whichever of them are there.

All are called with a sequence of arrays [..., d_m], in the order of the widths, and the presence of
each, bool [...]. A record of which nothing is there gives exactly 0, with gradient 0.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from datarax.functional.fusion.weighted import (
    Gate,
    attention_weighted_sum,
    gated_sum,
    masked_concatenate,
    weighted_sum,
)
from datarax.functional.masking import masked_mean
from datarax.nn.linear import Linear
from datarax.nn.modalities import (
    Inputs,
    Presence,
    check_inputs,
    check_widths,
    linears,
    project,
    stack,
    stack_presence,
    zero_where_empty,
)

Scores = Literal["separate", "joint"]


class ConcatFusion(nnx.Module):
    r"""$y = W [x_1; \dots; x_M] + c$ with zeros for absent modalities.

    Args:
      in_features: the width of each modality.
      out_features: the width of the result.
      mlp_features: of a hidden layer before W, $\mathrm{gelu}(W_1 [x_1; \dots; x_M] + c_1)$ with
        the exact error function; `None`: there is none.
      rngs: the stream `params` draws the kernels.

    Example:
      >>> fusion = ConcatFusion((2, 3), 4, rngs=nnx.Rngs(0))
      >>> fusion([jnp.ones(2), jnp.ones(3)]).shape
      (4,)
    """

    def __init__(
        self,
        in_features: Sequence[int],
        out_features: int,
        *,
        mlp_features: int | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.in_features = check_widths(in_features)
        whole = sum(self.in_features)
        self.hidden = None if mlp_features is None else Linear(whole, mlp_features, rngs=rngs)
        self.projection = Linear(mlp_features or whole, out_features, rngs=rngs)

    def __call__(self, inputs: Inputs, presence: Presence = None) -> Float[Array, "..."]:
        """The fused vector; see `functional.masked_concatenate`."""
        check_inputs(inputs, presence, self.in_features)
        joined = masked_concatenate(inputs, presence=presence)
        if self.hidden is not None:
            joined = jax.nn.gelu(self.hidden(joined), approximate=False)
        return zero_where_empty(self.projection(joined), presence)


class WeightedSumFusion(nnx.Module):
    r"""$y = \sum_m p_m w_m h_m$ with learned scalars $w_m$, initially 1/M; $h_m = W_m x_m + c_m$.

    The sum is not divided by the weights of what is there.

    Args:
      in_features: the width of each modality; `None` for a width that is not known here.
      out_features: the width of the result; `None`: the inputs, of equal widths, are summed as
        they are ($h_m = x_m$).
      rngs: the stream `params` draws the kernels; needed with `out_features` only.

    Example:
      >>> WeightedSumFusion((None, None))([jnp.ones(2), 3 * jnp.ones(2)])
      Array([2., 2.], dtype=float32)
    """

    def __init__(
        self,
        in_features: Sequence[int | None],
        out_features: int | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        self.in_features = tuple(in_features)
        known = [width for width in self.in_features if width is not None]
        count = len(self.in_features)
        if count == 0:
            raise ValueError("in_features must name at least one modality, got none")
        self.weights = nnx.Param(jnp.full(count, 1 / count, jnp.float32))
        if out_features is None:
            if len(set(known)) > 1:
                raise ValueError(
                    f"in_features {self.in_features} differ: give out_features to project them"
                )
            self.projections = None
        else:
            if rngs is None or len(known) < count:
                raise ValueError(
                    f"out_features={out_features} needs rngs and every width, "
                    f"got rngs={rngs} and in_features={self.in_features}"
                )
            self.projections = nnx.List(linears(known, out_features, rngs))

    def __call__(self, inputs: Inputs, presence: Presence = None) -> Float[Array, "..."]:
        """The fused vector; see `functional.weighted_sum`."""
        check_inputs(inputs, presence, self.in_features)
        if self.projections is not None:
            inputs = project(self.projections, inputs, presence)
        elif len({x.shape for x in inputs}) > 1:
            raise ValueError(f"inputs must share a shape, got {[x.shape for x in inputs]}")
        return weighted_sum(stack(inputs), self.weights[...], presence=stack_presence(presence))


class SumFusion(nnx.Module):
    r"""$y = \sum_m h_m$ over what is there, $h_m = W_m x_m + c_m$; with `average` its mean.

    Args:
      in_features: the width of each modality.
      out_features: the width of the result.
      average: divide by the number of modalities that are there.
      rngs: the stream `params` draws the kernels.

    Parameters: `projections[m]` (kernel [d_m, out], bias).

    Example:
      >>> fusion = SumFusion((2, 3), 4, average=True, rngs=nnx.Rngs(0))
      >>> nnx.eval_shape(fusion, [jnp.ones((5, 2)), jnp.ones((5, 3))]).shape
      (5, 4)
    """

    def __init__(
        self,
        in_features: Sequence[int],
        out_features: int,
        *,
        average: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        self.in_features = check_widths(in_features)
        self.average = average
        self.projections = nnx.List(linears(self.in_features, out_features, rngs))

    def __call__(self, inputs: Inputs, presence: Presence = None) -> Float[Array, "..."]:
        """The fused vector; see `functional.weighted_sum` and `functional.masked_mean`."""
        check_inputs(inputs, presence, self.in_features)
        hidden = stack(project(self.projections, inputs, presence))
        keep = stack_presence(presence)
        if self.average:
            return masked_mean(hidden, where=None if keep is None else keep[..., None], axis=-2)
        return weighted_sum(hidden, jnp.ones(hidden.shape[:-1], hidden.dtype), presence=keep)


class AttentionFusion(nnx.Module):
    r"""$y = \sum_m \alpha_m h_m$, $\alpha = \mathrm{softmax}_m(s)$, $h_m = W_m x_m + b_m$.

    The softmax runs over the modalities that are there.

    Args:
      in_features: the width of each modality.
      out_features: the width of the result.
      scores: `"separate"`: $s_m = v \cdot \tanh h_m + c_m$, each modality alone, $c_m$ initially 0;
        `"joint"`: $s = G [x_1; \dots; x_M] + c$, all modalities at once, zeros for absent ones
        (torchmultimodal's `AttentionFusionModule`, whose order is that of the sorted names).
      rngs: the stream `params` draws the kernels.

    Parameters: `projections[m]` (kernel [d_m, out], bias), and `score` (kernel [out, 1]) with
    `offsets` [m], or `score` (kernel [sum of d_m, m], bias).

    Example:
      >>> fusion = AttentionFusion((2, 3), 4, rngs=nnx.Rngs(0))
      >>> nnx.eval_shape(fusion, [jnp.ones((5, 2)), jnp.ones((5, 3))]).shape
      (5, 4)
    """

    def __init__(
        self,
        in_features: Sequence[int],
        out_features: int,
        *,
        scores: Scores = "separate",
        rngs: nnx.Rngs,
    ) -> None:
        if scores not in get_args(Scores):
            raise ValueError(f"scores must be one of {list(get_args(Scores))}, got {scores!r}")
        self.in_features = check_widths(in_features)
        self.scores = scores
        count = len(self.in_features)
        self.projections = nnx.List(linears(self.in_features, out_features, rngs))
        if scores == "joint":
            self.score = Linear(sum(self.in_features), count, rngs=rngs)
            self.offsets = None
        else:
            self.score = Linear(out_features, 1, use_bias=False, rngs=rngs)
            self.offsets = nnx.Param(jnp.zeros(count, jnp.float32))

    def __call__(self, inputs: Inputs, presence: Presence = None) -> Float[Array, "..."]:
        """The fused vector; see `functional.attention_weighted_sum`."""
        check_inputs(inputs, presence, self.in_features)
        hidden = stack(project(self.projections, inputs, presence))
        if self.offsets is None:
            scores = self.score(masked_concatenate(inputs, presence=presence))
        else:
            scores = self.score(jnp.tanh(hidden))[..., 0]
            scores = scores + jnp.broadcast_to(self.offsets[...].astype(scores.dtype), scores.shape)
        return attention_weighted_sum(hidden, scores, presence=stack_presence(presence))


class GatedFusion(nnx.Module):
    r"""Gated multimodal unit: $y = \sum_m z_m \odot \tanh(W_m x_m)$, $z$ from all inputs at once.

    The gate logits are $G [x_1; \dots; x_M]$, with zeros for absent modalities. See
    `functional.gated_sum` for the two gates.

    Args:
      in_features: the width of each modality.
      out_features: the width of the result.
      gate: `"softmax"` over the modalities that are there, or an independent `"sigmoid"` each.
      rngs: the stream `params` draws the kernels.

    Example:
      >>> fusion = GatedFusion((2, 3), 4, rngs=nnx.Rngs(0))
      >>> fusion([jnp.ones(2), jnp.full(3, jnp.nan)], [jnp.array(True), jnp.array(False)]).shape
      (4,)
    """

    def __init__(
        self,
        in_features: Sequence[int],
        out_features: int,
        *,
        gate: Gate = "softmax",
        rngs: nnx.Rngs,
    ) -> None:
        self.in_features = check_widths(in_features)
        self.out_features = out_features
        self.gate = gate
        self.projections = nnx.List(linears(self.in_features, out_features, rngs))
        width = len(self.in_features) * out_features
        self.gates = Linear(sum(self.in_features), width, rngs=rngs)

    def __call__(self, inputs: Inputs, presence: Presence = None) -> Float[Array, "..."]:
        """The fused vector; see `functional.gated_sum`."""
        check_inputs(inputs, presence, self.in_features)
        hidden = stack(project(self.projections, inputs, presence))
        logits = self.gates(masked_concatenate(inputs, presence=presence)).reshape(hidden.shape)
        return gated_sum(hidden, logits, presence=stack_presence(presence), gate=self.gate)
