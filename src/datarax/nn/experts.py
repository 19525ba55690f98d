"""Fusion of Gaussian beliefs, one from each modality. Kernels are [in, out]."""

from collections.abc import Sequence
from typing import Literal, get_args

from flax import nnx
from jaxtyping import Array, Float

from datarax.functional.fusion.experts import mixture_of_experts, product_of_experts
from datarax.nn.modalities import (
    Inputs,
    Presence,
    check_inputs,
    check_widths,
    linears,
    project,
    stack,
    stack_presence,
)

Combination = Literal["product", "mixture"]


class ExpertsFusion(nnx.Module):
    r"""Product, or mixture, of the Gaussians $N(\mu_m(x_m), e^{\lambda_m(x_m)})$, by its moments.

    Args:
      in_features: the widths of at least two modalities.
      out_features: the width of the latent vector.
      combination: `"product"`, with the prior $N(0, I)$; or `"mixture"`, by its two moments.
      eps: added to every variance of the product (MVAE's code: 1e-8).
      rngs: the stream `params` draws the kernels.

    Parameters: `means[m]` and `log_variances[m]` (kernel [d_m, out], bias). An absent modality has
    precision 0; a record of which nothing is there gives 0 and 0.

    Example:
      >>> import jax.numpy as jnp
      >>> fusion = ExpertsFusion((2, 3), 4, rngs=nnx.Rngs(0))
      >>> mean, log_variance = fusion([jnp.ones(2), jnp.ones(3)])
      >>> mean.shape, log_variance.shape
      ((4,), (4,))
    """

    def __init__(
        self,
        in_features: Sequence[int],
        out_features: int,
        *,
        combination: Combination = "product",
        eps: float | int = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        if combination not in get_args(Combination):
            raise ValueError(
                f"combination must be one of {list(get_args(Combination))}, got {combination!r}"
            )
        self.in_features = check_widths(in_features, at_least=2, name="a fusion of experts")
        self.combination = combination
        self.eps = eps
        self.means = nnx.List(linears(self.in_features, out_features, rngs))
        self.log_variances = nnx.List(linears(self.in_features, out_features, rngs))

    def __call__(
        self, inputs: Inputs, presence: Presence = None
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Mean and log-variance; see `functional.product_of_experts` and `mixture_of_experts`."""
        check_inputs(inputs, presence, self.in_features)
        means = stack(project(self.means, inputs, presence))
        log_variances = stack(project(self.log_variances, inputs, presence))
        keep = stack_presence(presence)
        if self.combination == "mixture":
            return mixture_of_experts(means, log_variances, presence=keep)
        return product_of_experts(means, log_variances, presence=keep, eps=self.eps)
