"""NT-Xent: two views of each record, contrasted with both views of every other."""

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num, ScalarLike

from datarax.functional.checks import accumulation_dtype, common_dtype
from datarax.functional.contrastive.cross_entropy import softmax_loss
from datarax.functional.contrastive.marks import without_absent
from datarax.functional.contrastive.rows import as_scalar, check_rows, kept_dot_products
from datarax.functional.contrastive.tiled_losses import Softmax, two_views
from datarax.functional.contrastive.tiles import check_tile, is_dense


def nt_xent(
    a: Num[Array, "n d"],
    b: Num[Array, "m e"],
    *,
    logit_scale: ScalarLike,
    where: Array | None = None,
    decoupled: bool = False,
    tile: int | None = None,
    operand_dtype: DTypeLike | None = None,
) -> Float[Array, " n"]:
    r"""NT-Xent of two views, with $z = (a; b)$ of $2n$ rows and $p(i)$ the other view of $i$:

    $\ell_i = \tfrac12 \sum_{v \in \{a_i, b_i\}} \big(\mathrm{lse}_{k \ne v} s\,z_v z_k -
    s\,z_v z_{p(v)}\big)$.

    Args:
      a, b: two views; row `i` of one is the positive of row `i` of the other. Not normalised here.
      logit_scale: the inverse temperature `s` itself.
      where: bool [n]. A row with False is removed from rows, columns and denominators.
      decoupled: the positive leaves the denominator (DCL, equation 6), as in lightly's `DCLLoss`.
      tile, operand_dtype: blocks of logits and the rounding of the products, as in `info_nce`.

    Returns:
      The mean of the losses of the two views of each row, at least float32, in [0, inf) (any sign
      if decoupled); SimCLR's loss is its mean. 0 for `n == 1`. The loss and the gradient of a
      removed row are exactly 0, even if it holds NaN.

    Raises:
      TypeError: if an embedding is not floating point or `where` not boolean.
      ValueError: if a shape does not fit.

    Reference: Chen et al., 2020, arXiv:2002.05709, equation 1; for `decoupled`, Yeh et al., 2021,
    arXiv:2110.06848, equation 6.

    Example:
      >>> losses = nt_xent(jnp.eye(2), jnp.eye(2), logit_scale=1.0)
      >>> [round(float(x), 4) for x in losses]
      [0.5514, 0.5514]
    """
    keep = check_rows(a, b, where=where, ids=None)
    check_tile(tile)
    views = jnp.concatenate([without_absent(x, where) for x in common_dtype(a, b)])
    n = a.shape[0]
    if not is_dense(2 * n, 2 * n, tile=tile, operand_dtype=operand_dtype):
        # Added to the scale: under `shard_map` its gradient is then summed over devices.
        zero = jnp.zeros_like(views, shape=(), dtype=accumulation_dtype(views))
        options = Softmax(
            as_scalar(logit_scale, zero, name="logit_scale") + zero,
            decoupled=decoupled,
            tile=tile,
            operands=operand_dtype,
        )
        twice = None if where is None else jnp.concatenate([where, where])
        losses = two_views(views, options, where=twice)
        return (losses[:n] + losses[n:]) / 2
    there = jnp.concatenate([keep, keep])
    logits = kept_dot_products(views, views, rows=there, columns=there)
    logits = logits * as_scalar(logit_scale, logits, name="logit_scale")
    index = jnp.arange(len(views))
    candidates = there[:, None] & there[None, :] & (index[:, None] != index[None, :])
    losses = softmax_loss(
        logits,
        candidates=candidates,
        positives=candidates & (index[:, None] % n == index[None, :] % n),
        decoupled=decoupled,
    )
    return (losses[:n] + losses[n:]) / 2
