"""Losses that pull the records of a pair together and push the rest of the batch away."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import combinations
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Num, ScalarLike

from datarax.functional.checks import (
    accumulation_dtype,
    check_floating,
    check_mask,
    check_rank,
    check_same_shape,
)
from datarax.functional.masking import masked_logsumexp, masked_mean
from datarax.functional.similarity import pairwise_dot_product

Directions = Literal["both", "a_to_b", "b_to_a"]
PairLoss = Literal["info_nce", "sigmoid"]
Pairs = Literal["all", "anchor"]


def info_nce(
    a: Num[Array, "n d"],
    b: Num[Array, "m e"],
    *,
    logit_scale: ScalarLike,
    logit_bias: ScalarLike | None = None,
    directions: Directions = "both",
    label_smoothing: float = 0.0,
    where: Array | None = None,
    ids: Array | None = None,
) -> Float[Array, " n"]:
    r"""Symmetric InfoNCE over in-batch negatives, with $L = s\,a b^\top + c$:

    $\ell_i = \tfrac12\big(\mathrm{lse}_j L_{ij} + \mathrm{lse}_j L_{ji}\big) - L_{ii}$.

    With `ids` the positive $L_{ii}$ becomes the mean of $L_{ip}$ over $p \in P(i)$, the kept rows
    with the id of `i` (itself among them): cross-entropy against a uniform target, $L^{sup}_{out}$
    of Khosla et al. Its minimum is then $\log |P(i)|$, not 0.

    Args:
      a, b: embeddings; row `i` of one is the positive of row `i` of the other. Not normalised here.
      logit_scale: the inverse temperature `s` itself, neither exponentiated nor clamped here.
      logit_bias: the constant `c`. It cancels; it is taken so that one head can feed every loss.
      directions: the mean of both softmaxes, or one: `"a_to_b"` runs over `b` for each of `a`.
      label_smoothing: the share in [0, 1) of the target that is spread evenly over all kept
        columns, the positive included.
      where: bool [n]. A row with False is removed from rows, columns and denominators, as if it
        were not in the batch (big_vision's convention; in TorchMultimodal it stays a negative).
      ids: integers [n]; rows that share one are positives of each other.

    Returns:
      One loss per row, at least float32, in [0, inf); 0 for `n == 1`. The loss and the gradient
      of a removed row are exactly 0, even if it holds NaN. Reduce it yourself: open_clip's loss is
      the mean.

    Raises:
      TypeError: if an embedding is not floating point, `where` not boolean, `ids` not integer.
      ValueError: if the shapes differ, or a choice or `label_smoothing` is out of range.

    Reference: Radford et al., 2021, arXiv:2103.00020, figure 3; for `ids`, Khosla et al., 2020,
    arXiv:2004.11362, equation 2.

    Example:
      >>> losses = info_nce(jnp.eye(2), jnp.eye(2), logit_scale=1.0)
      >>> [round(float(x), 4) for x in losses]
      [0.3133, 0.3133]
    """
    keep = _check_rows(a, b, where=where, ids=ids)
    _check_choice(directions, Directions, name="directions")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
    logits, pairs, positives = _logits(
        a, b, logit_scale=logit_scale, logit_bias=logit_bias, keep=keep, ids=ids
    )
    axes = {"both": (1, 0), "a_to_b": (1,), "b_to_a": (0,)}[directions]
    losses = []
    for axis in axes:
        matched = masked_mean(logits, where=positives, axis=axis)
        loss = masked_logsumexp(logits, where=pairs, axis=axis) - matched
        if label_smoothing > 0:
            everything = masked_mean(logits, where=pairs, axis=axis)
            # A difference first, so that it is exactly 0 for one row.
            loss = loss + label_smoothing * (matched - everything)
        losses.append(loss)
    return sum(losses[1:], losses[0]) / len(losses)


def sigmoid_contrastive(
    a: Num[Array, "n d"],
    b: Num[Array, "m e"],
    *,
    logit_scale: ScalarLike,
    logit_bias: ScalarLike,
    where: Array | None = None,
    ids: Array | None = None,
) -> Float[Array, " n"]:
    r"""Sigmoid loss over all pairs, $\ell_i = -\sum_j \log \sigma(z_{ij} (s\,a_i b_j^\top + c))$.

    Here $z_{ij}$ is 1 for a positive pair and -1 for any other.

    Args:
      a, b: embeddings; row `i` of one is the positive of row `i` of the other. Not normalised here.
      logit_scale: the inverse temperature `s` itself, neither exponentiated nor clamped here.
      logit_bias: the constant `c`; see `sigmoid_bias_init`.
      where: bool [n]. A row with False is removed from rows and columns.
      ids: integers [n]; rows that share one are positives of each other.

    Returns:
      One sum over the columns per row of `a`, at least float32, in [0, inf). Its mean over rows is
      SigLIP's loss. The loss and the gradient of a removed row are exactly 0, even if it holds NaN.
      For `n == 1` there is no negative, and the positive term is left.

    Raises:
      TypeError: if an embedding is not floating point, `where` not boolean, `ids` not integer.
      ValueError: if the shapes differ.

    Reference: Zhai et al., 2023, arXiv:2303.15343, equation 1 and algorithm 1.

    Example:
      >>> losses = sigmoid_contrastive(jnp.eye(2), jnp.eye(2), logit_scale=1.0, logit_bias=0.0)
      >>> [round(float(x), 4) for x in losses]
      [1.0064, 1.0064]
    """
    keep = _check_rows(a, b, where=where, ids=ids)
    logits, pairs, positives = _logits(
        a, b, logit_scale=logit_scale, logit_bias=logit_bias, keep=keep, ids=ids
    )
    losses = jax.nn.softplus(jnp.where(positives, -logits, logits))
    return jnp.sum(jnp.where(pairs, losses, 0), axis=1)


def sigmoid_bias_init(n: int) -> float:
    r"""The bias at which $\sigma(c) = 1/n$, the share of positives: $\log\frac{p}{1-p}$, $p = 1/n$.

    It equals $-\log(n - 1)$. With it, similarities near 0 start at the loss of the prior.

    Args:
      n: batch size over which the loss runs, at least 2.

    Returns:
      The bias, in (-inf, 0]; SigLIP's constant -10 is that of a batch of 22,027.

    Raises:
      ValueError: if `n < 2`.

    Reference: Zhai et al., 2023, arXiv:2303.15343, section 3.2 (the reason for a bias).

    Example:
      >>> round(sigmoid_bias_init(1024), 4)
      -6.9305
    """
    if n < 2:
        raise ValueError(f"n must be at least 2 for a prior of 1/n, got {n}")
    return -math.log(n - 1)


def clamped_exp(log_scale: Num[Array, ""], *, minimum: float, maximum: float) -> Float[Array, ""]:
    r"""The logit scale $\mathrm{clip}(e^{\theta}, s_{min}, s_{max})$ of a learned logarithm.

    At or beyond a bound a gradient passes only if a descent step along it leads back inside. The
    derivative of a plain clip is 0 there, which would hold a parameter that overshot for good.

    Args:
      log_scale: the parameter, a scalar.
      minimum, maximum: bounds of the scale, `0 < minimum <= maximum`.

    Returns:
      The scale, at least float32. Only reverse mode is defined.

    Raises:
      TypeError: if `log_scale` is not floating point.
      ValueError: if the bounds are not ordered and positive.

    Example:
      >>> clamped_exp(jnp.array(9.0), minimum=1.0, maximum=100.0)
      Array(100., dtype=float32)
    """
    check_floating(log_scale=log_scale)
    if not 0 < minimum <= maximum:
        raise ValueError(f"expected 0 < minimum <= maximum, got {minimum} and {maximum}")
    wide = log_scale.astype(accumulation_dtype(log_scale))
    return _clamped_exp(wide, minimum, maximum)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _clamped_exp(x: Array, low: float, high: float) -> Array:
    return jnp.clip(jnp.exp(x), low, high)


def _clamped_exp_forward(x: Array, low: float, high: float) -> tuple[Array, Array]:
    return _clamped_exp(x, low, high), jnp.exp(x)


def _clamped_exp_backward(low: float, high: float, free: Array, cotangent: Array) -> tuple[Array]:
    outward = ((free >= high) & (cotangent < 0)) | ((free <= low) & (cotangent > 0))
    return (jnp.where(outward, 0, cotangent * jnp.clip(free, low, high)),)


_clamped_exp.defvjp(_clamped_exp_forward, _clamped_exp_backward)


def pairwise_multimodal(
    embeddings: Sequence[Num[Array, "..."]],
    *,
    logit_scale: ScalarLike,
    presence: Sequence[Array] | None = None,
    loss: PairLoss = "info_nce",
    pairs: Pairs = "all",
    logit_bias: ScalarLike | None = None,
    directions: Directions = "both",
    label_smoothing: float = 0.0,
    ids: Array | None = None,
) -> tuple[Float[Array, " n"], Bool[Array, " n"]]:
    r"""A two-modality loss over pairs of M modalities, averaged over the pairs a row is in:

    $\ell_i = \frac{1}{|Q_i|} \sum_{(k,l) \in Q_i} \ell^{kl}_i$, with $Q_i$ the pairs of which row
    `i` has both modalities. In each pair only the rows that have both are in the batch.

    Args:
      embeddings: M >= 2 arrays [n, d]. Not normalised here.
      logit_scale: the inverse temperature of every pair.
      presence: M arrays bool [n], True where the row has that modality; `None`: all have all.
      loss: `info_nce` or `sigmoid_contrastive`.
      pairs: all M(M-1)/2 pairs, or those of the first modality with each other one.
      logit_bias: added to the logits; `"sigmoid"` needs it.
      directions, label_smoothing: as in `info_nce`; `"sigmoid"` has neither.
      ids: integers [n]; rows that share one are positives of each other.

    Returns:
      The losses [n], at least float32 (some code sums over pairs; this is the mean), and bool [n],
      True for rows that are in at least one pair. The other rows have loss and gradient exactly 0,
      whatever they hold. M == 2 with everything present is the two-modality loss itself.

    Raises:
      TypeError: as `info_nce`.
      ValueError: if M < 2, lengths or shapes differ, a choice is unknown, or `"sigmoid"` comes
        without a bias or with an option of `"info_nce"`.

    Reference: Girdhar et al., 2023, arXiv:2305.05665, section 3.1 (`"anchor"`).

    Example:
      >>> losses, used = pairwise_multimodal([jnp.eye(2)] * 3, logit_scale=1.0)
      >>> [round(float(x), 4) for x in losses], used.tolist()
      ([0.3133, 0.3133], [True, True])
    """
    _check_modalities(embeddings, presence)
    _check_choice(pairs, Pairs, name="pairs")
    _check_choice(loss, PairLoss, name="loss")
    if loss == "sigmoid":
        if logit_bias is None:
            raise ValueError("loss='sigmoid' needs a logit_bias, got None")
        if directions != "both" or label_smoothing != 0:
            raise ValueError("loss='sigmoid' takes neither directions nor label_smoothing")
    if presence is None:
        presence = [jnp.ones(x.shape[0], bool) for x in embeddings]
    total, count = 0.0, 0
    for k, l in combinations(range(len(embeddings)), 2):
        if pairs == "anchor" and k > 0:
            continue
        both = presence[k] & presence[l]
        a, b = embeddings[k], embeddings[l]
        if loss == "sigmoid" and logit_bias is not None:
            part = sigmoid_contrastive(
                a, b, logit_scale=logit_scale, logit_bias=logit_bias, where=both, ids=ids
            )
        else:
            part = info_nce(
                a,
                b,
                logit_scale=logit_scale,
                logit_bias=logit_bias,
                directions=directions,
                label_smoothing=label_smoothing,
                where=both,
                ids=ids,
            )
        total, count = total + part, count + both.astype(part.dtype)
    return total / jnp.maximum(count, 1), count > 0


def _logits(
    a: Array,
    b: Array,
    *,
    logit_scale: ArrayLike,
    logit_bias: ArrayLike | None,
    keep: Array,
    ids: Array | None,
) -> tuple[Array, Array, Array]:
    """The logits [n, n], which of them are between kept rows, and which of those are positives."""
    similarity = pairwise_dot_product(
        jnp.where(keep[:, None], a, 0), jnp.where(keep[:, None], b, 0)
    )
    logits = similarity * _scalar(logit_scale, similarity, name="logit_scale")
    if logit_bias is not None:
        logits = logits + _scalar(logit_bias, similarity, name="logit_bias")
    pairs = keep[:, None] & keep[None, :]
    if ids is None:
        ids = jnp.arange(a.shape[0])
    return logits, pairs, pairs & (ids[:, None] == ids[None, :])


def _scalar(value: ArrayLike, like: Array, *, name: str) -> Array:
    scalar = jnp.asarray(value, like.dtype)
    if scalar.ndim != 0:
        raise ValueError(f"{name} must be a scalar, got shape {scalar.shape}")
    return scalar


def _check_choice(value: str, choices: object, *, name: str) -> None:
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {list(get_args(choices))}, got {value!r}")


def _check_rows(a: Array, b: Array, *, where: Array | None, ids: Array | None) -> Array:
    """Reject what the losses cannot take; the mask of kept rows, all True for `None`."""
    check_floating(a=a, b=b)
    check_rank(2, axes="[n, d]", a=a, b=b)
    check_same_shape(a=a, b=b)
    n = a.shape[0]
    if ids is not None:
        if not jnp.issubdtype(ids.dtype, jnp.integer):
            raise TypeError(f"ids must be integers, got {ids.dtype}")
        if ids.shape != (n,):
            raise ValueError(f"ids must have shape {(n,)}, got {ids.shape}")
    if where is None:
        return jnp.ones(n, bool)
    check_mask(where, shape=(n,), name="where")
    return where


def _check_modalities(embeddings: Sequence[Array], presence: Sequence[Array] | None) -> None:
    if len(embeddings) < 2:
        raise ValueError(f"embeddings must hold at least 2 modalities, got {len(embeddings)}")
    named = {f"embeddings[{m}]": x for m, x in enumerate(embeddings)}
    check_floating(**named)
    check_rank(2, axes="[n, d]", **named)
    check_same_shape(**named)
    if presence is None:
        return
    if len(presence) != len(embeddings):
        raise ValueError(f"presence must hold {len(embeddings)} masks, got {len(presence)}")
    for m, mask in enumerate(presence):
        check_mask(mask, shape=(embeddings[0].shape[0],), name=f"presence[{m}]")
