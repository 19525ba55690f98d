"""The feed-forward layer of a transformer."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Num

from datarax.nn.linear import Linear

Activation = Literal["gelu", "gelu_tanh", "relu", "geglu"]


class FeedForward(nnx.Module):
    r"""$W_2\, \phi(W_1 x + c_1) + c_2$ for each token.

    Args:
      features: width of input and result.
      hidden_features: width between; `None`: four times `features`.
      activation: `"gelu"` with the exact error function, `"gelu_tanh"` its approximation (flax's
        default), `"relu"`, or `"geglu"`: $W_1$ gives a value and then a gate of the hidden width
        each, and $\phi(v, g) = v\,\mathrm{gelu}(g)$.
      use_bias: whether there are c_1 and c_2.
      rngs: the stream `params` draws the kernels `wide` and `narrow`, [in, out].

    Example:
      >>> FeedForward(4, rngs=nnx.Rngs(0))(jnp.ones((3, 4))).shape
      (3, 4)
    """

    def __init__(
        self,
        features: int,
        *,
        hidden_features: int | None = None,
        activation: Activation = "gelu",
        use_bias: bool = True,
        rngs: nnx.Rngs,
    ) -> None:
        if activation not in get_args(Activation):
            choices = list(get_args(Activation))
            raise ValueError(f"activation must be one of {choices}, got {activation!r}")
        hidden = 4 * features if hidden_features is None else hidden_features
        self.activation = activation
        self.wide = Linear(
            features, 2 * hidden if activation == "geglu" else hidden, use_bias=use_bias, rngs=rngs
        )
        self.narrow = Linear(hidden, features, use_bias=use_bias, rngs=rngs)

    def __call__(self, x: Num[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        """The result in the dtype of `x`."""
        hidden = self.wide(x)
        if self.activation == "geglu":
            value, gate = jnp.split(hidden, 2, axis=-1)
            return self.narrow(value * jax.nn.gelu(gate, approximate=False))
        if self.activation == "relu":
            return self.narrow(jax.nn.relu(hidden))
        return self.narrow(jax.nn.gelu(hidden, approximate=self.activation == "gelu_tanh"))
