"""Binary matching: does this pair belong together (image-text matching, ITM)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.checks import (
    accumulation_dtype,
    broadcast_mask,
    check_floating,
)
from datarax.functional.masking import masked_mean


def matching_loss(
    logits: Num[Array, "... k"], *, targets: Array, where: Array | None = None
) -> Float[Array, "..."]:
    r"""Binary cross-entropy over the candidates of each row, with $z = 1$ for a match, -1 if not:

    $\ell_i = \frac{1}{|C_i|} \sum_{k \in C_i} \log(1 + e^{-z_{ik} L_{ik}})$.

    Args:
      logits: log-odds that candidate `k` of row `i` is a match. A head with two outputs gives their
        difference.
      targets: bool, broadcastable to [..., k], True for a match.
      where: bool, broadcastable to [..., k], the candidates $C_i$ that are there; `None`: all.

    Returns:
      One mean per row, at least float32, in [0, inf). ALBEF's loss, of a positive and a negative
      for each modality, is its mean over rows. A row without candidates has loss 0; the loss and
      the gradient of a masked candidate are exactly 0, even if it holds NaN.

    Raises:
      TypeError: if `logits` are not floating point, or `targets` or `where` not boolean.
      ValueError: if a shape does not fit.

    Reference: Li et al., 2021, arXiv:2107.07651, equation 4.

    Example:
      >>> targets = jnp.array([True, False, False])
      >>> losses = matching_loss(jnp.array([[0.0, 0.0, -20.0]]), targets=targets)
      >>> [round(float(x), 4) for x in losses]
      [0.4621]
    """
    check_floating(logits=logits)
    matches = broadcast_mask(targets, shape=logits.shape, name="targets")
    keep = broadcast_mask(where, shape=logits.shape, name="where")
    wide = jnp.where(keep, logits, 0).astype(accumulation_dtype(logits))
    return masked_mean(jax.nn.softplus(jnp.where(matches, -wide, wide)), where=keep, axis=-1)
