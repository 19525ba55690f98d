"""Gaussian beliefs of the modalities about one latent vector, combined into one Gaussian.

The modalities are stacked on the axis before the features: [..., m, d], presence [..., m].
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.checks import (
    accumulation_dtype,
    broadcast_mask,
    check_floating,
    check_same_shape,
)
from datarax.functional.masking import masked_logsumexp, masked_mean, masked_softmax


def product_of_experts(
    means: Num[Array, "*batch m d"],
    log_variances: Num[Array, "*variances"],
    *,
    presence: Array | None = None,
    eps: float | int = 0.0,
) -> tuple[Float[Array, "*batch d"], Float[Array, "*batch d"]]:
    r"""The normalised product of the Gaussians that are there and the prior $N(0, I)$:

    $\mu = \sum_m T_m \mu_m / (1 + \sum_m T_m)$ and $\sigma^2 = 1 / (1 + \sum_m T_m)$, with the
    precisions $T_m = e^{-\lambda_m}$, 0 for an absent modality.

    Args:
      means: $\mu_m$, stacked on the axis before the features.
      log_variances: $\lambda_m$, in the shape of `means`.
      presence: bool, broadcastable to [..., m], True where the modality is there.
      eps: added to every variance, the prior's too, as MVAE's code does with 1e-8.

    Returns:
      The mean and the log-variance [..., d] in the dtype of `means`, computed in at least float32
      by a softmax and a logsumexp over the experts, so that log-variances of +-100 neither
      overflow nor lose the mean. Both 0 where nothing is there: the prior. Absent slots reach
      neither value nor gradient.

    Raises:
      TypeError: if an array is not floating point or `presence` not boolean.
      ValueError: if the shapes differ, fewer than two modalities are stacked, or `presence` does
        not fit.

    Reference: Wu and Goodman, 2018, arXiv:1802.05335, section 2.2; Cao and Fleet, 2014,
    arXiv:1410.7827.

    Example:
      >>> mean, log_variance = product_of_experts(jnp.ones((2, 1)), jnp.zeros((2, 1)))
      >>> [round(float(x[0]), 4) for x in (mean, log_variance)]
      [0.6667, -1.0986]
    """
    keep, mu, lam = _experts(means, log_variances, presence)
    prior = jnp.zeros_like(mu[..., :1, :])
    lam = jnp.concatenate([prior, lam], axis=-2)
    if eps:
        lam = jnp.logaddexp(lam, jnp.log(jnp.asarray(eps, lam.dtype)))
    experts = jnp.concatenate([jnp.ones_like(keep[..., :1, :]), keep], axis=-2)
    weights = masked_softmax(-lam, where=experts, axis=-2)
    mean = jnp.sum(weights * jnp.concatenate([prior, mu], axis=-2), axis=-2)
    log_variance = -masked_logsumexp(-lam, where=experts, axis=-2)
    return _finish(means, keep, mean, log_variance)


def mixture_of_experts(
    means: Num[Array, "*batch m d"],
    log_variances: Num[Array, "*variances"],
    *,
    presence: Array | None = None,
) -> tuple[Float[Array, "*batch d"], Float[Array, "*batch d"]]:
    r"""Mean and variance of the equal mixture of the Gaussians that are there:

    $\mu = \frac1M \sum_m \mu_m$ and
    $\sigma^2 = \frac1M \sum_m e^{\lambda_m} + \frac1M \sum_m (\mu_m - \mu)^2$. No prior expert.

    Args:
      means: $\mu_m$, stacked on the axis before the features.
      log_variances: $\lambda_m$, in the shape of `means`.
      presence: bool, broadcastable to [..., m], True where the modality is there.

    Returns:
      The mean and the log-variance [..., d] in the dtype of `means`, computed in at least float32;
      log-variances of +-100 do not overflow. Both 0 where nothing is there. Absent slots reach
      neither value nor gradient.

    Raises:
      TypeError: if an array is not floating point or `presence` not boolean.
      ValueError: if the shapes differ, fewer than two modalities are stacked, or `presence` does
        not fit.

    Reference: Shi et al., 2019, arXiv:1911.03393, section 3 (there the mixture itself is sampled).

    Example:
      >>> mean, _ = mixture_of_experts(jnp.array([[1.0], [3.0]]), jnp.zeros((2, 1)))
      >>> mean
      Array([2.], dtype=float32)
    """
    keep, mu, lam = _experts(means, log_variances, presence)
    mean = masked_mean(mu, where=keep, axis=-2)
    count = jnp.maximum(jnp.sum(keep, axis=-2, dtype=lam.dtype), 1)
    within = masked_logsumexp(lam, where=keep, axis=-2) - jnp.log(count)
    between = masked_mean((mu - mean[..., None, :]) ** 2, where=keep, axis=-2)
    apart = between > 0
    # log(e^w + b) by logaddexp: e^-w overflows; at b = 0 the derivative of its log is infinite.
    log_between = jnp.log(jnp.where(apart, between, 1))
    log_variance = jnp.where(apart, jnp.logaddexp(within, log_between), within)
    return _finish(means, keep, mean, log_variance)


def _experts(
    means: Array, log_variances: Array, presence: Array | None
) -> tuple[Array, Array, Array]:
    """Who is there for each feature, the means and the log-variances with zeros elsewhere."""
    check_floating(means=means, log_variances=log_variances)
    check_same_shape(means=means, log_variances=log_variances)
    if means.ndim < 2 or means.shape[-2] < 2:
        raise ValueError(
            f"means must stack at least 2 modalities as [..., m, d], got shape {means.shape}"
        )
    keep = broadcast_mask(presence, shape=means.shape[:-1], name="presence")[..., None]
    keep = jnp.broadcast_to(keep, means.shape)
    wide = accumulation_dtype(means, log_variances)
    return (
        keep,
        jnp.where(keep, means.astype(wide), 0),
        jnp.where(keep, log_variances.astype(wide), 0),
    )


def _finish(means: Array, keep: Array, *moments: Array) -> tuple[Array, Array]:
    some = jnp.any(keep, axis=-2)
    mean, log_variance = (jnp.where(some, x, 0).astype(means.dtype) for x in moments)
    return mean, log_variance
