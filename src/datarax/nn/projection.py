"""From the features of an encoder to a shared space, and the temperature of the loss there."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Num

from datarax.functional.contrastive import clamped_exp
from datarax.functional.masking import safe_l2_normalize
from datarax.nn.linear import Linear


class LogitScale(nnx.Module):
    r"""Learned inverse temperature $s = \mathrm{clip}(e^{\theta}, s_{min}, s_{max})$ and bias.

    `functional.clamped_exp` is the clamp: at a bound only a gradient that leads back passes.

    Args:
      initial_scale: $e^\theta$ at the start; 1/0.07 is CLIP's, 10 is SigLIP's.
      min_scale, max_scale: bounds of `s`, positive; 100 is CLIP's.
      initial_bias: start of the learned bias `c` that the sigmoid loss needs; `None`: no bias.
      relative: learn the bias as `r` of $s (x - r)$ in place of `c` of $s x + c$. It starts where
        `c` would, at $-c / s$.
      pairs: learn one scale and bias for each of so many pairs of modalities; `None`: one for all,
        a scalar.

    Example:
      >>> round(float(LogitScale()()), 3)
      14.286
    """

    def __init__(
        self,
        *,
        initial_scale: float | int = 1 / 0.07,
        min_scale: float | int = 1.0,
        max_scale: float | int = 100.0,
        initial_bias: float | int | None = None,
        relative: bool = False,
        pairs: int | None = None,
    ) -> None:
        if not 0 < min_scale <= initial_scale <= max_scale:
            raise ValueError(
                "expected 0 < min_scale <= initial_scale <= max_scale, "
                f"got {min_scale}, {initial_scale}, {max_scale}"
            )
        if relative and initial_bias is None:
            raise ValueError("relative is of a bias: give initial_bias, got None")
        if pairs is not None and pairs < 1:
            raise ValueError(f"pairs must be at least 1, got {pairs}")
        self.min_scale = min_scale
        self.max_scale = max_scale
        self.relative = relative
        shape = () if pairs is None else (pairs,)
        self.log_scale = nnx.Param(jnp.full(shape, math.log(initial_scale), jnp.float32))
        if initial_bias is None:
            self.bias = None
        else:
            start = -initial_bias / initial_scale if relative else initial_bias
            self.bias = nnx.Param(jnp.full(shape, start, jnp.float32))

    def __call__(self) -> Float[Array, "*pairs"]:
        """The scale; the bias is `logit_bias` or `relative_bias`."""
        clamp = partial(clamped_exp, minimum=self.min_scale, maximum=self.max_scale)
        log_scale = self.log_scale[...]
        return jax.vmap(clamp)(log_scale) if log_scale.ndim else clamp(log_scale)

    @property
    def logit_bias(self) -> Array | None:
        """The bias `c` as an array; `None` if there is none, or it is relative."""
        return None if self.bias is None or self.relative else self.bias[...]

    @property
    def relative_bias(self) -> Array | None:
        """The bias `r` as an array; `None` unless `relative`."""
        return self.bias[...] if self.bias is not None and self.relative else None


class ProjectionHead(nnx.Module):
    r"""$W x + c$, or with `hidden_features` $W_2\,\mathrm{gelu}(W_1 x + c_1) + c_2$.

    Args:
      in_features, out_features: widths.
      hidden_features: width of the hidden layer; `None` is a linear head.
      normalize: return unit vectors (a zero vector stays 0).
      use_bias: whether the layers have biases.
      rngs: the stream `params` draws the kernels.

    Example:
      >>> head = ProjectionHead(8, 4, normalize=True, rngs=nnx.Rngs(0))
      >>> round(float(jnp.sum(head(jnp.ones(8)) ** 2)), 4)
      1.0
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_features: int | None = None,
        normalize: bool = False,
        use_bias: bool = True,
        rngs: nnx.Rngs,
    ) -> None:
        self.normalize = normalize
        self.hidden = (
            None
            if hidden_features is None
            else Linear(in_features, hidden_features, use_bias=use_bias, rngs=rngs)
        )
        width = in_features if hidden_features is None else hidden_features
        self.output = Linear(width, out_features, use_bias=use_bias, rngs=rngs)

    def __call__(self, x: Num[Array, "*batch i"]) -> Float[Array, "*batch o"]:
        """The projection in the dtype of `x`."""
        if self.hidden is not None:
            x = jax.nn.gelu(self.hidden(x), approximate=False)
        y = self.output(x)
        return safe_l2_normalize(y) if self.normalize else y
