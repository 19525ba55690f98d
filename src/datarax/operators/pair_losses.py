"""The losses of one pair of fields, by the name of the method."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from datarax.functional.contrastive import (
    info_nce,
    info_nce_from_similarity,
    late_interaction,
    nt_xent,
    sigmoid_contrastive,
    sigmoid_from_similarity,
    supervised_contrastive,
    triplet,
)
from datarax.functional.similarity import pairwise_cosine_similarity
from datarax.operators.contrastive_config import ContrastiveOperatorConfig


@dataclass(frozen=True)
class Columns:
    """More negatives for the other field: unit vectors, which are there, and their ids."""

    vectors: Array
    where: Array
    ids: Array | None = None


@dataclass(frozen=True)
class Side:
    """One field of a pair.

    Attributes:
      vectors: unit vectors [n, d], or tokens [n, t, d].
      presence: bool [n].
      tokens: bool [n, t], the tokens that are there.
      columns: more negatives of this field.
      teacher: embeddings [n, e] of a teacher.
    """

    vectors: Array
    presence: Array
    tokens: Array | None = None
    columns: Columns | None = None
    teacher: Array | None = None


def pair_losses(
    config: ContrastiveOperatorConfig,
    a: Side,
    b: Side,
    *,
    temperature: dict[str, Any],
    ids: Array | None,
    operands: DTypeLike | None,
) -> list[Array]:
    """The losses `[n]` of a pair, one or one a direction: theirs is the mean.

    Args:
      config: the method and its options.
      a, b: the fields.
      temperature: `logit_scale` and the bias that there is, by the names of the arguments of
        `functional.contrastive`.
      ids: integers [n].
      operands: what the products of vectors are rounded to; `None` for their own dtype.
    """
    both = a.presence & b.presence
    if config.method == "triplet":
        return [_triplet(config, a, b, ids=ids, where=both)]
    options = dict(temperature)
    if config.similarity == "cosine":
        options["operand_dtype"] = operands
    if config.method == "info_nce":
        return _info_nce(config, a, b, ids=ids, **options)
    if config.method == "sigmoid":
        return _sigmoid(config, a, b, ids=ids, where=both, **options)
    if config.method == "nt_xent":
        options |= {"decoupled": config.decoupled, "where": both}
        return [nt_xent(a.vectors, b.vectors, **options)]
    return _supervised(config, a, b, ids=ids, where=both, **options)


def narrow_dtype(a: Array, b: Array) -> DTypeLike | None:
    """What the products of two fields are rounded to: their dtype, if it is below float32."""
    return a.dtype if a.dtype == b.dtype and jnp.finfo(a.dtype).bits < 32 else None


def _info_nce(
    config: ContrastiveOperatorConfig, a: Side, b: Side, *, ids: Array | None, **options: Any
) -> list[Array]:
    options |= {
        "label_smoothing": config.label_smoothing,
        "decoupled": config.decoupled,
        "ids": ids,
    }
    if config.unpaired_negatives:
        options |= {"where_a": a.presence, "where_b": b.presence}
    else:
        options["where"] = a.presence & b.presence
    if config.similarity == "late_interaction":
        there, back = _late_interaction(config, a, b), _late_interaction(config, b, a)
        reverse = None if config.directions == "a_to_b" else back
        options["directions"] = config.directions
        return [info_nce_from_similarity(there, reverse, **options)]
    options |= {"axis_name": config.axis_name, "collective": config.collective}
    if a.columns is None and b.columns is None:
        return [info_nce(a.vectors, b.vectors, directions=config.directions, **options)]
    found = {"a_to_b": ("negatives_b", b.columns), "b_to_a": ("negatives_a", a.columns)}
    directions = tuple(found) if config.directions == "both" else (config.directions,)
    calls = [options | _columns(*found[name]) | {"directions": name} for name in directions]
    return [info_nce(a.vectors, b.vectors, **call) for call in calls]


def _columns(name: str, columns: Columns | None) -> dict[str, Any]:
    if columns is None:
        return {}
    return {name: columns.vectors, "negatives_where": columns.where, "negatives_ids": columns.ids}


def _late_interaction(config: ContrastiveOperatorConfig, a: Side, b: Side) -> Array:
    return late_interaction(
        a.vectors,
        b.vectors,
        a_mask=a.tokens,
        b_mask=b.tokens,
        reduction=config.token_reduction,
    )


def _sigmoid(config: ContrastiveOperatorConfig, a: Side, b: Side, **options: Any) -> list[Array]:
    if config.similarity == "cosine":
        options |= {"axis_name": config.axis_name, "collective": config.collective}
        return [sigmoid_contrastive(a.vectors, b.vectors, **options)]
    return [
        sigmoid_from_similarity(_late_interaction(config, x, y), **options)
        for x, y in ((a, b), (b, a))
    ]


def _triplet(config: ContrastiveOperatorConfig, a: Side, b: Side, **options: Any) -> Array:
    return triplet(
        a.vectors,
        b.vectors,
        margin=config.margin,
        mining=config.mining,
        directions=config.directions,
        distance="dot" if config.distance == "cosine" else config.distance,
        **options,
    )


def _supervised(
    config: ContrastiveOperatorConfig, a: Side, b: Side, *, logit_scale: Any, **options: Any
) -> list[Array]:
    sides = {"a_to_b": (a, b), "b_to_a": (b, a)}
    directions = tuple(sides) if config.directions == "both" else (config.directions,)
    losses = []
    for anchors, others in (sides[direction] for direction in directions):
        if anchors.teacher is not None and others.teacher is not None:
            taught = pairwise_cosine_similarity(anchors.teacher, others.teacher)
            options["teacher_similarity"] = taught * logit_scale
            options["distillation"] = config.distillation
            options.pop("operand_dtype", None)  # a teacher's are all held, and dense
        vectors = (anchors.vectors, others.vectors)
        losses.append(supervised_contrastive(*vectors, logit_scale=logit_scale, **options))
    return losses
