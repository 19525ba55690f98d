"""Learned fusions of a record's modalities, whichever of them are there.

All are called with a sequence of arrays [..., d_m], in the order of the widths, and the presence of
each, bool [...]. A record of which nothing is there gives exactly 0, with gradient 0.
"""

from collections.abc import Iterable, Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Num

from datarax.functional.checks import check_floating, check_mask
from datarax.functional.fusion import (
    Gate,
    attention_weighted_sum,
    gated_sum,
    masked_concatenate,
    weighted_sum,
)
from datarax.nn.linear import Linear

Inputs = Sequence[Num[Array, "..."]]


class ConcatFusion(nnx.Module):
    r"""$y = W [x_1; \dots; x_M] + c$ with zeros for absent modalities.

    Args:
      in_features: the width of each modality.
      out_features: the width of the result.
      rngs: the stream `params` draws the kernel.

    Example:
      >>> fusion = ConcatFusion((2, 3), 4, rngs=nnx.Rngs(0))
      >>> fusion([jnp.ones(2), jnp.ones(3)]).shape
      (4,)
    """

    def __init__(self, in_features: Sequence[int], out_features: int, *, rngs: nnx.Rngs) -> None:
        self.in_features = _widths(in_features)
        self.projection = Linear(sum(self.in_features), out_features, rngs=rngs)

    def __call__(
        self, inputs: Inputs, presence: Sequence[Array] | None = None
    ) -> Float[Array, "..."]:
        """The fused vector; see `functional.masked_concatenate`."""
        _check_inputs(inputs, presence, self.in_features)
        fused = self.projection(masked_concatenate(inputs, presence=presence))
        return _zero_where_empty(fused, presence)


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
            self.projections = nnx.List(_linears(known, out_features, rngs))

    def __call__(
        self, inputs: Inputs, presence: Sequence[Array] | None = None
    ) -> Float[Array, "..."]:
        """The fused vector; see `functional.weighted_sum`."""
        _check_inputs(inputs, presence, self.in_features)
        if self.projections is not None:
            inputs = _project(self.projections, inputs, presence)
        elif len({x.shape for x in inputs}) > 1:
            raise ValueError(f"inputs must share a shape, got {[x.shape for x in inputs]}")
        return weighted_sum(_stack(inputs), self.weights[...], presence=_stack_masks(presence))


class AttentionFusion(nnx.Module):
    r"""$y = \sum_m \alpha_m h_m$, $\alpha = \mathrm{softmax}_m(v \cdot \tanh h_m + c_m)$.

    $h_m = W_m x_m + b_m$; the softmax runs over the modalities that are there. The offsets
    $c_m$ start at 0.

    Args:
      in_features: the width of each modality.
      out_features: the width of the result.
      rngs: the stream `params` draws the kernels.

    Example:
      >>> fusion = AttentionFusion((2, 3), 4, rngs=nnx.Rngs(0))
      >>> fusion([jnp.ones((5, 2)), jnp.ones((5, 3))]).shape
      (5, 4)
    """

    def __init__(self, in_features: Sequence[int], out_features: int, *, rngs: nnx.Rngs) -> None:
        self.in_features = _widths(in_features)
        self.projections = nnx.List(_linears(self.in_features, out_features, rngs))
        self.score = Linear(out_features, 1, use_bias=False, rngs=rngs)
        self.offsets = nnx.Param(jnp.zeros(len(self.in_features), jnp.float32))

    def __call__(
        self, inputs: Inputs, presence: Sequence[Array] | None = None
    ) -> Float[Array, "..."]:
        """The fused vector; see `functional.attention_weighted_sum`."""
        _check_inputs(inputs, presence, self.in_features)
        hidden = _stack(_project(self.projections, inputs, presence))
        scores = self.score(jnp.tanh(hidden))[..., 0]
        offsets = jnp.broadcast_to(self.offsets[...].astype(scores.dtype), scores.shape)
        return attention_weighted_sum(hidden, scores + offsets, presence=_stack_masks(presence))


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
        self.in_features = _widths(in_features)
        self.out_features = out_features
        self.gate = gate
        self.projections = nnx.List(_linears(self.in_features, out_features, rngs))
        width = len(self.in_features) * out_features
        self.gates = Linear(sum(self.in_features), width, rngs=rngs)

    def __call__(
        self, inputs: Inputs, presence: Sequence[Array] | None = None
    ) -> Float[Array, "..."]:
        """The fused vector; see `functional.gated_sum`."""
        _check_inputs(inputs, presence, self.in_features)
        hidden = _stack(_project(self.projections, inputs, presence))
        logits = self.gates(masked_concatenate(inputs, presence=presence)).reshape(hidden.shape)
        return gated_sum(hidden, logits, presence=_stack_masks(presence), gate=self.gate)


def _widths(in_features: Sequence[int]) -> tuple[int, ...]:
    if len(in_features) == 0:
        raise ValueError("in_features must name at least one modality, got none")
    return tuple(in_features)


def _linears(in_features: Sequence[int], out_features: int, rngs: nnx.Rngs) -> list[Linear]:
    return [Linear(width, out_features, rngs=rngs) for width in in_features]


def _project(
    projections: Iterable[Linear], inputs: Inputs, presence: Sequence[Array] | None
) -> list[Array]:
    """Each modality through its map, absent ones zeroed before it: NaN would reach the kernel."""
    if presence is not None:
        inputs = [
            jnp.where(mask[..., None], x, 0) for x, mask in zip(inputs, presence, strict=True)
        ]
    return [layer(x) for layer, x in zip(projections, inputs, strict=True)]


def _stack(inputs: Sequence[Array]) -> Array:
    return jnp.stack(inputs, axis=-2)


def _stack_masks(presence: Sequence[Array] | None) -> Array | None:
    return None if presence is None else jnp.stack(presence, axis=-1)


def _zero_where_empty(fused: Array, presence: Sequence[Array] | None) -> Array:
    if presence is None:
        return fused
    return jnp.where(jnp.any(jnp.stack(presence), axis=0)[..., None], fused, 0)


def _check_inputs(
    inputs: Inputs, presence: Sequence[Array] | None, in_features: Sequence[int | None]
) -> None:
    if len(inputs) != len(in_features):
        raise ValueError(f"inputs must hold {len(in_features)} arrays, got {len(inputs)}")
    check_floating(**{f"inputs[{m}]": x for m, x in enumerate(inputs)})
    if len({x.dtype for x in inputs}) > 1:
        raise TypeError(f"inputs must share a dtype, got {[str(x.dtype) for x in inputs]}")
    for m, (x, width) in enumerate(zip(inputs, in_features, strict=True)):
        if width is not None and x.shape[-1:] != (width,):
            raise ValueError(f"inputs[{m}] must have shape [..., {width}], got {x.shape}")
        if x.shape[:-1] != inputs[0].shape[:-1]:
            raise ValueError(f"inputs must share leading axes, got {[x.shape for x in inputs]}")
    if presence is None:
        return
    if len(presence) != len(inputs):
        raise ValueError(f"presence must hold {len(inputs)} masks, got {len(presence)}")
    for m, mask in enumerate(presence):
        check_mask(mask, shape=inputs[0].shape[:-1], name=f"presence[{m}]")
