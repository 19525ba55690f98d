r"""Bilinear fusions: products of projected modalities, any number of them but for Tucker's.

Kernels are [in, out]. Dropout and shared projections, which the originals have, are left out. An
absent modality's factor is replaced by ones; a record of which nothing is there gives 0. With
`normalize` the product passes `functional.power_normalize` (signed square root, then unit norm)
before the output map; `"chunks"` normalises each chunk of BLOCK alone.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from datarax.functional.fusion.bilinear import (
    block_product,
    mfh_product,
    power_normalize,
    tucker_product,
)
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

Activation = Literal["identity", "relu", "tanh"]
Normalize = Literal["none", "whole", "chunks"]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "identity": lambda x: x,
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
}


class FactorizedBilinearFusion(nnx.Module):
    r"""MLB, MFB and MFH: $W[z_1; \dots; z_p] + c$, each $z_i$ a pooled product of projections.

    One stage of rank 1 is MLB, $W(\bigodot_m f(W_m x_m))$; one stage of another rank MFB; more
    stages MFH, in which each stage's product is multiplied into the next one's.

    Args:
      in_features: the widths of at least two modalities.
      out_features: the width of the result.
      hidden_features: the width of one stage's product; `None`: `out_features`.
      rank: terms of each sum (`factor` in the original code).
      stages: number of products.
      activation: of the projections (MLB's paper: tanh; the original code: relu).
      output_activation: of the result.
      normalize: `"whole"`: each stage's product; or `"none"`.
      rngs: the stream `params` draws the kernels.

    Parameters: `projections[stage][m]` (kernel [d_m, hidden * rank], bias; the terms of one sum
    beside each other), `output` (kernel [stages * hidden, out], bias).

    Example:
      >>> fusion = FactorizedBilinearFusion((2, 3), 4, rank=2, rngs=nnx.Rngs(0))
      >>> fusion([jnp.ones(2), jnp.ones(3)]).shape
      (4,)
    """

    def __init__(
        self,
        in_features: Sequence[int],
        out_features: int,
        *,
        hidden_features: int | None = None,
        rank: int = 1,
        stages: int = 1,
        activation: Activation = "identity",
        output_activation: Activation = "identity",
        normalize: Normalize = "whole",
        rngs: nnx.Rngs,
    ) -> None:
        self.in_features = check_widths(in_features, at_least=2, name="a bilinear fusion")
        hidden = out_features if hidden_features is None else hidden_features
        _check_sizes(hidden_features=hidden, rank=rank, stages=stages)
        _check_normalize(normalize, chunks=1)
        self.rank, self.normalize = rank, normalize
        self.activation, self.output_activation = activation, output_activation
        self.projections = nnx.List(
            [nnx.List(linears(self.in_features, hidden * rank, rngs)) for _ in range(stages)]
        )
        self.output = Linear(stages * hidden, out_features, rngs=rngs)

    def __call__(self, inputs: Inputs, presence: Presence = None) -> Float[Array, "..."]:
        """The fused vector; see `functional.mfh_product`."""
        check_inputs(inputs, presence, self.in_features)
        activate = ACTIVATIONS[self.activation]
        stages = [stack(project(layers, inputs, presence)) for layers in self.projections]
        product = mfh_product(
            activate(jnp.stack(stages, axis=-3)),
            rank=self.rank,
            normalize=self.normalize == "whole",
            presence=stack_presence(presence),
        )
        fused = ACTIVATIONS[self.output_activation](self.output(product))
        return zero_where_empty(fused, presence)


class BlockFusion(nnx.Module):
    r"""BLOCK, and MUTAN, which is its case of one chunk.

    $h_m = W_m x_m + c_m$ is cut into chunks; each chunk of each modality is mapped to `rank` times
    its width, the modalities are multiplied, and the ranks summed.

    Args:
      in_features: the widths of at least two modalities.
      out_features: the width of the result.
      hidden_features: the width of $h_m$; `None`: `out_features`.
      rank: terms of each sum.
      chunks: number of chunks; the sizes are those of the original code.
      normalize: `"chunks"` (BLOCK's default), `"whole"`, or `"none"` (MUTAN's).
      rngs: the stream `params` draws the kernels.

    Parameters: `projections[m]` (kernel [d_m, hidden], bias), `merges[c][m]` (kernel
    [size_c, rank * size_c], bias; the outputs of one rank beside each other), `output` (kernel
    [hidden, out], bias).

    Example:
      >>> fusion = BlockFusion((2, 3), 4, rank=2, chunks=2, rngs=nnx.Rngs(0))
      >>> fusion([jnp.ones(2), jnp.ones(3)]).shape
      (4,)
    """

    def __init__(
        self,
        in_features: Sequence[int],
        out_features: int,
        *,
        hidden_features: int | None = None,
        rank: int = 8,
        chunks: int = 1,
        normalize: Normalize = "whole",
        rngs: nnx.Rngs,
    ) -> None:
        self.in_features = check_widths(in_features, at_least=2, name="a bilinear fusion")
        hidden = out_features if hidden_features is None else hidden_features
        _check_sizes(hidden_features=hidden, rank=rank, chunks=chunks)
        _check_normalize(normalize, chunks=chunks)
        self.rank, self.normalize = rank, normalize
        self.sizes = chunk_sizes(hidden, chunks)
        self.projections = nnx.List(linears(self.in_features, hidden, rngs))
        self.merges = nnx.List(
            [
                nnx.List(linears([size] * len(self.in_features), rank * size, rngs))
                for size in self.sizes
            ]
        )
        self.output = Linear(hidden, out_features, rngs=rngs)

    def __call__(self, inputs: Inputs, presence: Presence = None) -> Float[Array, "..."]:
        """The fused vector; see `functional.block_product`."""
        check_inputs(inputs, presence, self.in_features)
        hidden = project(self.projections, inputs, presence)
        chunks, start = [], 0
        for size, layers in zip(self.sizes, self.merges, strict=True):
            parts = [h[..., start : start + size] for h in hidden]
            chunks.append(stack(project(layers, parts, presence)))
            start += size
        product = block_product(
            chunks,
            rank=self.rank,
            normalize=self.normalize == "chunks",
            presence=stack_presence(presence),
        )
        if self.normalize == "whole":
            product = power_normalize(product)
        return zero_where_empty(self.output(product), presence)


class TuckerFusion(nnx.Module):
    r"""$W\,T(h_1, h_2) + c$ with a full core tensor T, of two modalities, $h_m = W_m x_m + c_m$.

    Args:
      in_features: the widths of the two modalities.
      out_features: the width of the result.
      hidden_features: the width of $h_m$ and of the core; `None`: `out_features`.
      normalize: `"whole"`: the core's result; or `"none"`.
      rngs: the stream `params` draws the kernels.

    Parameters: `projections[m]` (kernel [d_m, hidden], bias), `core` [hidden, hidden, hidden] as
    [first, second, result] (torch's `Bilinear.weight` is [result, first, second]), `core_bias`
    [hidden], `output` (kernel [hidden, out], bias).

    Example:
      >>> TuckerFusion((2, 3), 4, rngs=nnx.Rngs(0))([jnp.ones(2), jnp.ones(3)]).shape
      (4,)
    """

    def __init__(
        self,
        in_features: Sequence[int],
        out_features: int,
        *,
        hidden_features: int | None = None,
        normalize: Normalize = "whole",
        rngs: nnx.Rngs,
    ) -> None:
        self.in_features = check_widths(in_features, at_least=2, at_most=2, name="Tucker fusion")
        hidden = out_features if hidden_features is None else hidden_features
        _check_sizes(hidden_features=hidden)
        _check_normalize(normalize, chunks=1)
        self.normalize = normalize
        self.projections = nnx.List(linears(self.in_features, hidden, rngs))
        draw = nnx.initializers.normal(1 / hidden)
        self.core = nnx.Param(draw(rngs.params(), (hidden, hidden, hidden), jnp.float32))
        self.core_bias = nnx.Param(jnp.zeros(hidden, jnp.float32))
        self.output = Linear(hidden, out_features, rngs=rngs)

    def __call__(self, inputs: Inputs, presence: Presence = None) -> Float[Array, "..."]:
        """The fused vector; see `functional.tucker_product`."""
        check_inputs(inputs, presence, self.in_features)
        product = tucker_product(
            stack(project(self.projections, inputs, presence)),
            self.core[...],
            bias=self.core_bias[...],
            presence=stack_presence(presence),
        )
        if self.normalize == "whole":
            product = power_normalize(product)
        return zero_where_empty(self.output(product), presence)


def chunk_sizes(width: int, chunks: int) -> tuple[int, ...]:
    """Sizes of BLOCK's chunks: equal, the last one smaller; as even as can be if that left none.

    Example:
      >>> chunk_sizes(10, 4), chunk_sizes(10, 8)
      ((3, 3, 3, 1), (2, 2, 1, 1, 1, 1, 1, 1))
    """
    if chunks > width:
        raise ValueError(f"chunks must be at most hidden_features {width}, got {chunks}")
    size = -(-width // chunks)
    last = width - size * (chunks - 1)
    if last >= 1:
        return (size,) * (chunks - 1) + (last,)
    larger = width - (size - 1) * chunks
    return (size,) * larger + (size - 1,) * (chunks - larger)


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be positive, got {size}")


def _check_normalize(normalize: str, *, chunks: int) -> None:
    if normalize not in get_args(Normalize):
        raise ValueError(f"normalize must be one of {list(get_args(Normalize))}, got {normalize!r}")
    if normalize == "chunks" and chunks == 1:
        raise ValueError("normalize='chunks' needs a fusion of more than one chunk, got one")
