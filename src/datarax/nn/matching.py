"""A head that tells a matching pair from one that does not match."""

from collections.abc import Sequence
from typing import Literal, get_args

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Num

from datarax.functional.checks import check_floating
from datarax.nn.projection import ProjectionHead

MatchingFusion = Literal["all", "concat", "product", "difference"]


class MatchingHead(nnx.Module):
    r"""Log-odds that two embeddings belong together, $L = h(f(a, b))$ with a learned $h$.

    `functional.matching_loss` is its loss, and the sigmoid of the logit the probability. ALBEF's
    head has two outputs; this is their difference.

    Args:
      in_features: the widths of `a` and `b`.
      fusion: $f$: `"concat"` $[a; b]$, `"product"` $a \odot b$, `"difference"` $|a - b|$, `"all"`
        the four together (InferSent), or a module that is called with `[a, b]`, such as
        `nn.GatedFusion`. All but `"concat"` and a module need equal widths.
      fused_features: the width of what a module given as `fusion` returns.
      hidden_features: width of the hidden layer; `None` is a linear head.
      rngs: the stream `params` draws the kernels.

    Raises:
      ValueError: for an unknown fusion, or widths that do not fit it.

    Reference: Li et al., 2021, arXiv:2107.07651, section 3.2; Conneau et al., 2017,
    arXiv:1705.02364, figure 1 (`"all"`).

    Example:
      >>> head = MatchingHead((4, 4), rngs=nnx.Rngs(0))
      >>> head(jnp.ones((2, 4)), jnp.zeros((2, 4))).shape
      (2,)
    """

    def __init__(
        self,
        in_features: Sequence[int],
        *,
        fusion: str | nnx.Module = "all",
        fused_features: int | None = None,
        hidden_features: int | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.in_features = tuple(in_features)
        if len(self.in_features) != 2:
            raise ValueError(f"in_features must be two widths, got {self.in_features}")
        self.fusion = fusion
        width = _fused_width(self.in_features, fusion, fused_features)
        self.head = ProjectionHead(width, 1, hidden_features=hidden_features, rngs=rngs)

    def __call__(self, a: Num[Array, "..."], b: Num[Array, "..."]) -> Float[Array, "..."]:
        """The logits in the dtype of `a` and `b`.

        Raises:
          TypeError: unless both are floating point.
          ValueError: for other widths, or leading shapes or dtypes that differ.
        """
        check_floating(a=a, b=b)
        for name, x, width in zip("ab", (a, b), self.in_features, strict=True):
            if x.shape[-1:] != (width,):
                raise ValueError(f"{name} must have shape [..., {width}], got {x.shape}")
        if a.shape[:-1] != b.shape[:-1]:
            raise ValueError(f"a and b must have equal leading axes, got {a.shape} and {b.shape}")
        if a.dtype != b.dtype:
            raise ValueError(f"a and b must have one dtype, got {a.dtype} and {b.dtype}")
        return jnp.squeeze(self.head(self._fuse(a, b)), axis=-1)

    def _fuse(self, a: Array, b: Array) -> Array:
        if not isinstance(self.fusion, str):
            return self.fusion([a, b])
        parts = {
            "concat": lambda: [a, b],
            "product": lambda: [a * b],
            "difference": lambda: [jnp.abs(a - b)],
            "all": lambda: [a, b, jnp.abs(a - b), a * b],
        }
        return jnp.concatenate(parts[self.fusion](), axis=-1)


def _fused_width(
    widths: tuple[int, ...], fusion: str | nnx.Module, fused_features: int | None
) -> int:
    if not isinstance(fusion, str):
        if fused_features is None:
            raise ValueError(f"a module as fusion needs fused_features, got {fusion}")
        return fused_features
    if fused_features is not None:
        raise ValueError(
            f"fused_features is of a module as fusion, got {fused_features} with {fusion!r}"
        )
    if fusion not in get_args(MatchingFusion):
        raise ValueError(
            f"fusion must be one of {list(get_args(MatchingFusion))} or a module, got {fusion!r}"
        )
    if fusion == "concat":
        return sum(widths)
    if widths[0] != widths[1]:
        raise ValueError(f"fusion {fusion!r} needs equal widths, got {widths}")
    return widths[0] * (4 if fusion == "all" else 1)
