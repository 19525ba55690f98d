"""An affine map that computes in the dtype of its input."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Num

from datarax.functional.checks import accumulation_dtype, check_floating


class Linear(nnx.Module):
    r"""$y = x W + c$ on the last axis, in the dtype of `x`, accumulated in at least float32.

    The parameters are float32. `nnx.Linear` promotes the input to them instead, which JAX's strict
    promotion refuses.

    Args:
      in_features, out_features: widths, at least 1.
      use_bias: add the vector c, initially 0.
      rngs: the stream `params` draws W (LeCun normal).

    Example:
      >>> Linear(3, 2, rngs=nnx.Rngs(0))(jnp.zeros((4, 3), jnp.bfloat16)).shape
      (4, 2)
    """

    def __init__(
        self, in_features: int, out_features: int, *, use_bias: bool = True, rngs: nnx.Rngs
    ) -> None:
        if in_features < 1 or out_features < 1:
            raise ValueError(
                f"in_features and out_features must be positive, got {in_features}, {out_features}"
            )
        self.in_features = in_features
        self.out_features = out_features
        draw = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(draw(rngs.params(), (in_features, out_features), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_features, jnp.float32)) if use_bias else None

    def __call__(self, x: Num[Array, "*batch i"]) -> Float[Array, "*batch o"]:
        """The map; TypeError unless `x` is floating point, ValueError for another width."""
        check_floating(x=x)
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"x must have shape [..., {self.in_features}], got {x.shape}")
        wide = accumulation_dtype(x)
        y = jnp.einsum(
            "...i,io->...o", x, self.kernel[...].astype(x.dtype), preferred_element_type=wide
        )
        if self.bias is not None:
            y = y + jnp.broadcast_to(self.bias[...].astype(wide), y.shape)
        return y.astype(x.dtype)
