"""Cross-entropy of a row of logits against its positives: the core of the softmax losses."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from datarax.functional.masking import masked_logsumexp, masked_mean


def softmax_loss(
    logits: Float[Array, "n m"],
    *,
    candidates: Bool[Array, "n m"],
    positives: Bool[Array, "n m"],
    label_smoothing: float = 0.0,
    decoupled: bool = False,
) -> Float[Array, " n"]:
    r"""$\mathrm{lse}_{j \in C(i)} L_{ij} - \mathrm{mean}_{p \in P(i)} L_{ip}$ for each row.

    Args:
      logits: finite at every candidate; masked slots may hold anything finite.
      candidates: the columns $C(i)$ of the denominator. A row without positives has none.
      positives: the columns $P(i)$, a subset of the candidates.
      label_smoothing: the share in [0, 1) of the target spread evenly over the candidates.
      decoupled: the positives leave the denominator. A row without negatives is then 0.

    Returns:
      One loss per row; 0 with gradient 0 for a row without candidates.
    """
    # Formed once: else the products may be fused into each of the terms below and rounded apart,
    # and the loss of a row that is its own only candidate would not be 0.
    logits = lax.optimization_barrier(logits)
    if decoupled:
        negatives = candidates & ~positives
        contrasted = jnp.any(negatives, axis=1, keepdims=True)
        matched = masked_mean(logits, where=positives & contrasted, axis=1)
        return masked_logsumexp(logits, where=negatives, axis=1) - matched
    matched = masked_mean(logits, where=positives, axis=1)
    loss = masked_logsumexp(logits, where=candidates, axis=1) - matched
    if label_smoothing > 0:
        everything = masked_mean(logits, where=candidates, axis=1)
        # A difference first, so that it is exactly 0 for one row.
        loss = loss + label_smoothing * (matched - everything)
    return loss


def soft_cross_entropy(
    logits: Float[Array, "n m"],
    targets: Float[Array, "n m"],
    *,
    candidates: Bool[Array, "n m"],
) -> Float[Array, " n"]:
    r"""$\sum_{j \in C(i)} t_{ij} (\mathrm{lse}_{k \in C(i)} L_{ik} - L_{ij})$ for each row.

    Args:
      logits: finite everywhere.
      targets: weights, 0 outside the candidates; a row of zeros has loss and gradient 0.
      candidates: the columns $C(i)$ of the denominator.

    Returns:
      One loss per row, at least 0 for targets that are. The entropy of the targets is not
      subtracted.
    """
    normaliser = masked_logsumexp(logits, where=candidates, axis=1)
    surprise = jnp.where(candidates, normaliser[:, None] - logits, 0)
    return jnp.sum(targets * surprise, axis=1)
