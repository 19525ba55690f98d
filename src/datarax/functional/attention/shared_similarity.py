"""Attention of two sequences to each other through one similarity."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.attention.dot_product import dot_product_attention
from datarax.functional.checks import check_floating, check_mask


def co_attention(
    a: Num[Array, "*batch t h d"],
    b: Num[Array, "*batch s h d"],
    *,
    value_a: Num[Array, "*batch t h e"],
    value_b: Num[Array, "*batch s h f"],
    mask_a: Array | None = None,
    mask_b: Array | None = None,
    scale: float | None = None,
) -> tuple[Float[Array, "*batch t h f"], Float[Array, "*batch s h e"]]:
    r"""Each sequence attends to the other by one similarity, $S_{ts} = \gamma\, a_t \cdot b_s$:

    $o^a_t = \sum_s \mathrm{softmax}_s(S_{ts})\, v^b_s$ and
    $o^b_s = \sum_t \mathrm{softmax}_t(S_{ts})\, v^a_t$.

    Args:
      a, b: what is compared.
      value_a, value_b: what is attended to.
      mask_a, mask_b: bool [..., t] and [..., s], True = keep. Masked tokens may hold NaN.
      scale: the factor gamma; 1/sqrt(d) for `None`.

    Returns:
      What the tokens of `a` see of `b` and those of `b` of `a`, in the dtypes of the values; the
      softmax is computed in at least float32. A masked token, and one that has nothing to see, gets
      exactly 0, with gradient 0. Each side is a `dot_product_attention`: of many tokens no matrix
      of all weights is held.

    Raises:
      TypeError: if an input is not floating point, or a mask not boolean.
      ValueError: if the shapes do not fit.

    Reference: Lu et al., 2016, arXiv:1606.00061, section 3.3; Li et al., 2022, arXiv:2112.03857,
      equations 4 to 6.

    Example:
      >>> a, b = jnp.ones((2, 1, 4)), jnp.ones((3, 1, 4))
      >>> [x.shape for x in co_attention(a, b, value_a=a, value_b=b)]
      [(2, 1, 4), (3, 1, 4)]
    """
    _check(a, b, value_a, value_b)
    keep = None
    if mask_a is not None or mask_b is not None:
        keep_a, keep_b = _tokens(mask_a, a, name="mask_a"), _tokens(mask_b, b, name="mask_b")
        keep = keep_a[..., None, :, None] & keep_b[..., None, None, :]
    turned = None if keep is None else jnp.swapaxes(keep, -1, -2)
    seen_b = dot_product_attention(a, b, value_b, mask=keep, scale=scale)
    return seen_b, dot_product_attention(b, a, value_a, mask=turned, scale=scale)


def _tokens(mask: Array | None, x: Array, *, name: str) -> Array:
    if mask is None:
        return jnp.ones(x.shape[:-2], bool)
    check_mask(mask, shape=x.shape[:-2], name=name)
    return mask


def _check(a: Array, b: Array, value_a: Array, value_b: Array) -> None:
    arrays = {"a": a, "b": b, "value_a": value_a, "value_b": value_b}
    check_floating(**arrays)
    ranks = {x.ndim for x in arrays.values()}
    fits = len(ranks) == 1 and min(ranks) >= 3 and a.shape[-1] == b.shape[-1]
    fits = fits and len({(x.shape[:-3], x.shape[-2]) for x in arrays.values()}) == 1
    if not fits or a.shape[-3] != value_a.shape[-3] or b.shape[-3] != value_b.shape[-3]:
        listed = ", ".join(f"{name} {x.shape}" for name, x in arrays.items())
        raise ValueError(
            "expected a [..., t, h, d], b [..., s, h, d], value_a [..., t, h, e], "
            f"value_b [..., s, h, f], got {listed}"
        )
