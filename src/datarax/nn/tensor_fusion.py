"""Tensor fusion, whole and of low rank. Kernels are [in, out]; the constant 1 comes first.

An absent modality is $[1; 0]$; a record of which nothing is there gives 0.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from datarax.functional.fusion.tensor import low_rank_tensor, outer_product
from datarax.nn.linear import Linear
from datarax.nn.modalities import (
    Inputs,
    Presence,
    check_inputs,
    check_widths,
    zero_where_empty,
)


class TensorFusion(nnx.Module):
    r"""$W\,\mathrm{vec}\big(\bigotimes_m [1; x_m]\big) + c$.

    Its kernel has $\prod_m (d_m + 1)$ rows: for wide modalities see `LowRankTensorFusion`.

    Args:
      in_features: the widths of at least two modalities.
      out_features: the width of the result.
      rngs: the stream `params` draws the kernel.

    Parameters: `output` (kernel [product of d_m + 1, out], bias), rows in the order of
    `functional.outer_product`.

    Example:
      >>> TensorFusion((2, 3), 4, rngs=nnx.Rngs(0))([jnp.ones(2), jnp.ones(3)]).shape
      (4,)
    """

    def __init__(self, in_features: Sequence[int], out_features: int, *, rngs: nnx.Rngs) -> None:
        self.in_features = check_widths(in_features, at_least=2, name="tensor fusion")
        self.output = Linear(math.prod(d + 1 for d in self.in_features), out_features, rngs=rngs)

    def __call__(self, inputs: Inputs, presence: Presence = None) -> Float[Array, "..."]:
        """The fused vector; see `functional.outer_product`."""
        check_inputs(inputs, presence, self.in_features)
        return zero_where_empty(self.output(outer_product(inputs, presence=presence)), presence)


class LowRankTensorFusion(nnx.Module):
    r"""$\sum_r w_r \bigodot_m [1; x_m]^\top F_m^{(r)} + c$ (LMF).

    Args:
      in_features: the widths of at least two modalities.
      out_features: the width of the result.
      rank: number of ranks.
      rngs: the stream `params` draws the factors.

    Parameters: `factors[m]` [rank, d_m + 1, out], `weights` [rank], initially $1/\sqrt{r}$, and
    `bias` [out]. MultiBench's factors are in no optimiser; these train.

    Example:
      >>> LowRankTensorFusion((2, 3), 4, rngs=nnx.Rngs(0))([jnp.ones(2), jnp.ones(3)]).shape
      (4,)
    """

    def __init__(
        self, in_features: Sequence[int], out_features: int, *, rank: int = 8, rngs: nnx.Rngs
    ) -> None:
        if rank < 1:
            raise ValueError(f"rank must be positive, got {rank}")
        self.in_features = check_widths(in_features, at_least=2, name="tensor fusion")
        draw = nnx.initializers.lecun_normal(batch_axis=0)
        self.factors = nnx.List(
            [
                nnx.Param(draw(rngs.params(), (rank, width + 1, out_features), jnp.float32))
                for width in self.in_features
            ]
        )
        self.weights = nnx.Param(jnp.full(rank, 1 / math.sqrt(rank), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_features, jnp.float32))

    def __call__(self, inputs: Inputs, presence: Presence = None) -> Float[Array, "..."]:
        """The fused vector; see `functional.low_rank_tensor`."""
        check_inputs(inputs, presence, self.in_features)
        return low_rank_tensor(
            inputs,
            [factor[...] for factor in self.factors],
            weights=self.weights[...],
            bias=self.bias[...],
            presence=presence,
        )
