"""Multiplicative interaction of two modalities."""

import math
from collections.abc import Sequence
from typing import get_args

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from datarax.functional.fusion.multiplicative import Form, multiplicative_interaction
from datarax.nn.modalities import Inputs, Presence, check_inputs, check_widths, stack_presence


class MultiplicativeFusion(nnx.Module):
    r"""$W'(x)\,y + b'(x)$, the weights made from x, which conditions, by a linear map.

    Args:
      in_features: the widths of the two modalities.
      out_features: the width of the result; for `"vector"` and `"scalar"` it must be that of y.
      form: what $W'(x)$ is: a `"matrix"`, the diagonal of one (`"vector"`), or a `"scalar"`.
      condition: which of the two is x, 0 or 1 (MultiBench's `flip` is 1).
      rngs: the stream `params` draws the tensors.

    Parameters: `interaction`, `from_x`, `from_y`, `bias`, the W, U, V and b of
    `functional.multiplicative_interaction` (shapes there; MultiBench's names and layout). In the
    last two forms $V$ starts at 1, so that at the start y comes through.

    Example:
      >>> MultiplicativeFusion((2, 3), 4, rngs=nnx.Rngs(0))([jnp.ones(2), jnp.ones(3)]).shape
      (4,)
    """

    def __init__(
        self,
        in_features: Sequence[int],
        out_features: int,
        *,
        form: Form = "matrix",
        condition: int = 0,
        rngs: nnx.Rngs,
    ) -> None:
        name = "multiplicative interaction"
        self.in_features = check_widths(in_features, at_least=2, at_most=2, name=name)
        if form not in get_args(Form):
            raise ValueError(f"form must be one of {list(get_args(Form))}, got {form!r}")
        if condition not in (0, 1):
            raise ValueError(f"condition must be 0 or 1, the position of x, got {condition}")
        n, m = self.in_features[condition], self.in_features[1 - condition]
        if form != "matrix" and out_features != m:
            raise ValueError(
                f"out_features of form {form!r} must be {m}, the width that is conditioned, "
                f"got {out_features}"
            )
        self.form, self.condition = form, condition
        rows = {"matrix": (out_features,), "vector": (m,), "scalar": ()}[form]

        def draw(fan_in: int, *shape: int) -> nnx.Param:
            normal = nnx.initializers.normal(1 / math.sqrt(fan_in))
            return nnx.Param(normal(rngs.params(), shape, jnp.float32))

        self.from_x = draw(n, n, *rows)
        self.bias = nnx.Param(jnp.zeros(rows or (1,), jnp.float32))
        if form == "matrix":
            self.interaction = draw(n * m, n, m, *rows)
            self.from_y = draw(m, m, *rows)
        else:
            self.interaction = draw(n, n, *rows)
            self.from_y = nnx.Param(jnp.ones(rows or (1,), jnp.float32))

    def __call__(self, inputs: Inputs, presence: Presence = None) -> Float[Array, "..."]:
        """The fused vector; see `functional.multiplicative_interaction`."""
        check_inputs(inputs, presence, self.in_features)
        x, y = self.condition, 1 - self.condition
        sides = None if presence is None else [presence[x], presence[y]]
        return multiplicative_interaction(
            inputs[x],
            inputs[y],
            interaction=self.interaction[...],
            from_x=self.from_x[...],
            from_y=self.from_y[...],
            bias=self.bias[...],
            form=self.form,
            presence=stack_presence(sides),
        )
