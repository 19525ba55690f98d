"""Similarity of two sequences of tokens that meet only at the end."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.checks import (
    accumulation_dtype,
    check_floating,
    check_mask,
    check_rank,
    common_dtype,
)
from datarax.functional.contrastive.rows import check_choice
from datarax.functional.masking import masked_mean

Reduction = Literal["mean", "sum"]


def late_interaction(
    a: Num[Array, "n t d"],
    b: Num[Array, "m s e"],
    *,
    a_mask: Array | None = None,
    b_mask: Array | None = None,
    reduction: Reduction = "mean",
) -> Float[Array, "n m"]:
    r"""Best match of each token, $S_{ij} = \frac{1}{|A_i|} \sum_{t \in A_i} \max_{s \in B_j} a_{it}
    \cdot b_{js}$, over the kept tokens.

    It is not symmetric: `late_interaction(b, a)` looks for the best token of `a` for each of `b`.
    FILIP's loss is `info_nce_from_similarity(late_interaction(a, b), late_interaction(b, a))`.

    Args:
      a: tokens [n, t, d]. Not normalised here; FILIP and ColBERT take unit vectors.
      b: tokens [m, s, d].
      a_mask: bool [n, t], the kept tokens of `a`; `None` keeps all.
      b_mask: bool [m, s], those of `b`.
      reduction: over the tokens of `a`: the mean (FILIP) or the sum (ColBERT).

    Returns:
      The similarities, at least float32; 0 where either side keeps no token. A masked token may
      hold NaN or inf; its gradient is exactly 0. Tokens that tie share the gradient. The memory is
      that of all n m t s products.

    Raises:
      TypeError: if tokens are not floating point or a mask not boolean.
      ValueError: if a shape does not fit or `reduction` is unknown.

    Reference: Yao et al., 2021, arXiv:2111.07783, section 3.1 (FILIP); Khattab and Zaharia, 2020,
    arXiv:2004.12832, section 3.3 (ColBERT).

    Example:
      >>> a = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
      >>> late_interaction(a, jnp.array([[[0.5, 0.0]], [[0.0, 1.0]]]))
      Array([[0.25, 0.5 ]], dtype=float32)
    """
    _check_tokens(a, b)
    check_choice(reduction, Reduction, name="reduction")
    kept_a, kept_b = _kept(a, a_mask, name="a_mask"), _kept(b, b_mask, name="b_mask")
    a, b = common_dtype(jnp.where(kept_a[..., None], a, 0), jnp.where(kept_b[..., None], b, 0))
    products = jnp.einsum(
        "ntd,msd->nmts",
        a,
        b,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=accumulation_dtype(a),
    )
    best = jnp.max(jnp.where(kept_b[None, :, None, :], products, -jnp.inf), axis=3)
    matched = kept_a[:, None, :] & jnp.any(kept_b, axis=1)[None, :, None]
    if reduction == "sum":
        return jnp.sum(jnp.where(matched, best, 0), axis=2)
    return masked_mean(best, where=matched, axis=2)


def _kept(x: Array, mask: Array | None, *, name: str) -> Array:
    if mask is None:
        return jnp.ones(x.shape[:2], bool)
    check_mask(mask, shape=x.shape[:2], name=name)
    return mask


def _check_tokens(a: Array, b: Array) -> None:
    check_floating(a=a, b=b)
    check_rank(3, axes="[n, t, d]", a=a, b=b)
    if a.shape[2] != b.shape[2]:
        raise ValueError(f"a and b must have one width, got shapes {a.shape} and {b.shape}")
    for name, x in (("a", a), ("b", b)):
        if x.shape[1] == 0:
            raise ValueError(f"{name} must have at least one token, got shape {x.shape}")
