"""A transformer block over a set of tokens, of which some may be masked. Kernels are [in, out]."""

import jax
from flax import nnx
from jaxtyping import Array, Float, Num

from datarax.functional.attention.dot_product import dot_product_attention
from datarax.functional.checks import check_floating, check_mask
from datarax.nn.linear import Linear
from datarax.nn.normalization import LayerNorm


class TransformerBlock(nnx.Module):
    r"""Pre-norm block: $u = x + A(\mathrm{LN}(x))$, then $u + M(\mathrm{LN}(u))$.

    A is multi-head self-attention, M two layers with a GELU (its tanh form) between them; the layer
    norms have eps 1e-6. These are flax's conventions, and MBT's.

    Args:
      width: the width of a token.
      num_heads: number of heads, which divides `width`.
      mlp_features: the width between the two layers of M.
      rngs: the stream `params` draws the kernels.

    Parameters: `norms[0]`, `norms[1]` (`LayerNorm`); `query`, `key`, `value`, `output` (kernel
    [width, width], bias; head h has columns, or rows of `output`, from h * width / num_heads);
    `wide` (kernel [width, mlp], bias), `narrow` (kernel [mlp, width], bias).

    Example:
      >>> block = TransformerBlock(4, num_heads=2, mlp_features=8, rngs=nnx.Rngs(0))
      >>> block(jax.numpy.ones((3, 4))).shape
      (3, 4)
    """

    def __init__(self, width: int, *, num_heads: int, mlp_features: int, rngs: nnx.Rngs) -> None:
        if num_heads < 1 or width % num_heads:
            raise ValueError(f"num_heads {num_heads} does not divide the width {width}")
        self.num_heads = num_heads
        self.norms = nnx.List([LayerNorm(width) for _ in range(2)])
        self.query = Linear(width, width, rngs=rngs)
        self.key = Linear(width, width, rngs=rngs)
        self.value = Linear(width, width, rngs=rngs)
        self.output = Linear(width, width, rngs=rngs)
        self.wide = Linear(width, mlp_features, rngs=rngs)
        self.narrow = Linear(mlp_features, width, rngs=rngs)

    def __call__(
        self, x: Num[Array, "*batch t d"], mask: Array | None = None
    ) -> Float[Array, "*batch t d"]:
        """Tokens of the same shape.

        Args:
          x: the tokens. Masked ones must be finite.
          mask: bool [..., t]; a token with False is seen by none; what comes out for it means
            nothing.
        """
        check_floating(x=x)
        if mask is not None:
            check_mask(mask, shape=x.shape[:-1], name="mask")
            mask = mask[..., None, None, :]
        tokens = self.norms[0](x)
        query, key, value = (self._heads(f(tokens)) for f in (self.query, self.key, self.value))
        attended = dot_product_attention(query, key, value, mask=mask)
        x = x + self.output(attended.reshape(x.shape))
        return x + self.narrow(jax.nn.gelu(self.wide(self.norms[1](x)), approximate=True))

    def _heads(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.num_heads, -1)
