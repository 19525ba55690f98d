"""Losses of two modalities over the pairs of many."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num, ScalarLike

from datarax.functional.contrastive.rows import check_choice, check_modalities
from datarax.functional.contrastive.sigmoid import sigmoid_contrastive
from datarax.functional.contrastive.softmax import Directions, info_nce

PairLoss = Literal["info_nce", "sigmoid"]
Pairs = Literal["all", "anchor"]


def pairwise_multimodal(
    embeddings: Sequence[Num[Array, "..."]],
    *,
    logit_scale: ScalarLike | Num[Array, "..."],
    presence: Sequence[Array] | None = None,
    loss: PairLoss = "info_nce",
    pairs: Pairs = "all",
    pair_weights: Num[Array, "..."] | None = None,
    logit_bias: ScalarLike | Num[Array, "..."] | None = None,
    relative_bias: ScalarLike | Num[Array, "..."] | None = None,
    directions: Directions = "both",
    label_smoothing: float = 0.0,
    decoupled: bool = False,
    ids: Array | None = None,
    tile: int | None = None,
) -> tuple[Float[Array, " n"], Bool[Array, " n"]]:
    r"""A two-modality loss over pairs of M modalities, averaged over the pairs a row is in:

    $\ell_i = \sum_{(k,l) \in Q_i} w_{kl} \ell^{kl}_i \big/ \sum_{(k,l) \in Q_i} w_{kl}$, with $Q_i$
    the pairs of which row `i` has both modalities. In each pair only the rows that have both are
    in the batch.

    Args:
      embeddings: M >= 2 arrays [n, d]. Not normalised here.
      logit_scale: the inverse temperature of every pair, or [P], one a pair: in the order of
        `itertools.combinations(range(M), 2)`, or (0, 1), (0, 2), ... for `"anchor"`.
      presence: M arrays bool [n], True where the row has that modality; `None`: all have all.
      loss: `info_nce` or `sigmoid_contrastive`.
      pairs: all M(M-1)/2 pairs, or those of the first modality with each other one.
      pair_weights: [P], at least 0, in the same order; `None` weighs all alike.
      logit_bias: added to the logits, a scalar or [P].
      relative_bias: of `"sigmoid"`, a scalar or [P]; it needs one of the two biases.
      directions, label_smoothing, decoupled: as in `info_nce`; `"sigmoid"` has none of them.
      ids: integers [n]; rows that share one are positives of each other.
      tile: as in `info_nce`, of each pair.

    Returns:
      The losses [n], at least float32 (some code sums over pairs; this is the mean), and bool [n],
      True for rows that are in at least one pair of positive weight. The other rows have loss and
      gradient exactly 0, whatever they hold. M == 2 with everything present is the two-modality
      loss itself.

    Raises:
      TypeError: as `info_nce`.
      ValueError: if M < 2, lengths or shapes differ, a choice is unknown, or `"sigmoid"` comes
        without a bias or with an option of `"info_nce"`, or the other way round.

    Reference: Girdhar et al., 2023, arXiv:2305.05665, section 3.1 (`"anchor"`).

    Example:
      >>> losses, used = pairwise_multimodal([jnp.eye(2)] * 3, logit_scale=1.0)
      >>> [round(float(x), 4) for x in losses], used.tolist()
      ([0.3133, 0.3133], [True, True])
    """
    masks = check_modalities(embeddings, presence)
    check_choice(pairs, Pairs, name="pairs")
    check_choice(loss, PairLoss, name="loss")
    softmax_options: dict[str, Any] = {
        "directions": directions,
        "label_smoothing": label_smoothing,
        "decoupled": decoupled,
    }
    _check_options(loss, softmax_options, logit_bias=logit_bias, relative_bias=relative_bias)
    every = [(k, l) for k, l in combinations(range(len(embeddings)), 2) if pairs == "all" or k == 0]
    scalars = {"logit_scale": logit_scale, "logit_bias": logit_bias}
    if loss == "sigmoid":
        scalars["relative_bias"] = relative_bias
    of_pair = {name: _per_pair(x, len(every), name=name) for name, x in scalars.items()}
    weights = _weights(pair_weights, len(every))
    function: Any = sigmoid_contrastive if loss == "sigmoid" else info_nce
    options = {"tile": tile} | ({} if loss == "sigmoid" else softmax_options)
    total, count = 0.0, 0.0
    for p, (k, l) in enumerate(every):
        both = masks[k] & masks[l]
        own = {name: values[p] for name, values in of_pair.items()}
        part = function(embeddings[k], embeddings[l], where=both, ids=ids, **own, **options)
        weight = both.astype(part.dtype)
        if weights is not None:
            weight = weight * weights[p].astype(part.dtype)
            part = part * weights[p].astype(part.dtype)
        total, count = total + part, count + weight
    return total / jnp.where(count > 0, count, 1), count > 0


def _per_pair(value: Any, count: int, *, name: str) -> Any:
    """A value for each pair: the scalar (or `None`) for all, or the entries of [P]."""
    shape = jnp.shape(value) if value is not None else ()
    if shape not in ((), (count,)):
        raise ValueError(f"{name} must be a scalar or have shape {(count,)}, got {shape}")
    return value if shape else [value] * count


def _weights(weights: Array | None, count: int) -> Array | None:
    if weights is not None and weights.shape != (count,):
        raise ValueError(f"pair_weights must have shape {(count,)}, got {weights.shape}")
    return weights


def _check_options(
    loss: str, softmax_options: dict[str, Any], *, logit_bias: Any, relative_bias: Any
) -> None:
    if loss == "info_nce":
        if relative_bias is not None:
            raise ValueError("relative_bias belongs to loss='sigmoid', got loss='info_nce'")
        return
    if logit_bias is None and relative_bias is None:
        raise ValueError("loss='sigmoid' needs a logit_bias or a relative_bias, got None")
    if softmax_options != {"directions": "both", "label_smoothing": 0.0, "decoupled": False}:
        raise ValueError(
            "loss='sigmoid' takes neither directions nor label_smoothing nor decoupled"
        )
