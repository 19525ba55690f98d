"""Contrast with many positives: by label, by soft target, by a teacher's similarities."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Num, ScalarLike

from datarax.functional.checks import accumulation_dtype
from datarax.functional.contrastive.cross_entropy import soft_cross_entropy, softmax_loss
from datarax.functional.contrastive.marks import without_absent
from datarax.functional.contrastive.rows import (
    as_scalar,
    check_ids,
    check_matrix,
    check_rows,
    kept_dot_products,
    kept_rows,
    same_id,
)
from datarax.functional.contrastive.tiled_losses import (
    Columns,
    Softmax,
    among_labels,
    joint_labels,
    one_way,
)
from datarax.functional.contrastive.tiles import check_tile, is_dense
from datarax.functional.masking import masked_softmax


def supervised_contrastive(
    a: Num[Array, "n d"],
    b: Num[Array, "m e"] | None = None,
    *,
    logit_scale: ScalarLike,
    ids: Array | None = None,
    targets: Array | None = None,
    where: Array | None = None,
    teacher_similarity: Array | None = None,
    distillation: ScalarLike = 0.0,
    tile: int | None = None,
    operand_dtype: DTypeLike | None = None,
) -> Float[Array, " n"]:
    r"""Supervised contrastive loss $L^{sup}_{out}$, or its soft form, with $L = s\,a b^\top$:

    $\ell_i = \mathrm{lse}_{j \in C(i)} L_{ij} - \sum_{j \in C(i)} t_{ij} L_{ij}$, with $t_i$ a
    distribution over the candidates $C(i)$: uniform over the rows with the id of `i`, or given.

    Args:
      a: anchors. Not normalised here.
      b: contrasts, one to a row of `a`; every kept one is a candidate. `None` contrasts `a` with
        itself, and a row is then neither candidate nor positive of itself.
      logit_scale: the inverse temperature `s` itself. SupCon's code also multiplies by
        temperature / base_temperature; here as in the paper there is no such factor.
      ids: integers [n]; rows that share one are positives. `None` with `b`: row `i` of `i`.
      targets: [n, n], at least 0, soft positives in place of ids; each row is divided by its sum.
      where: bool [n]. A row with False is removed from rows, columns and denominators.
      teacher_similarity: [n, n], the logits of a teacher, its scale included. No gradient.
      distillation: the share alpha in [0, 1] of the teacher's softmax in the target:
        $t = (1 - \alpha) t + \alpha\,\mathrm{softmax}(T)$ (ALBEF).
      tile, operand_dtype: blocks of logits and the rounding of the products, as in `info_nce`.
        Targets and a teacher are O(n^2) themselves, and are taken by the dense form.

    Returns:
      One loss per row of `a`, at least float32, in [0, inf). Rows without a positive (see
      `has_positive`; for `targets`, a row of zeros) have loss and gradient 0: SupCon's loss is the
      mean over the others. The entropy of the target is not subtracted. The loss and the gradient
      of a removed row are exactly 0, even if it holds NaN.

    Raises:
      TypeError: if an array is not floating point, `where` not boolean, `ids` not integer.
      ValueError: if a shape does not fit, both ids and targets are given, neither without `b`, or
        `distillation` is out of range or has no teacher, or targets or a teacher come with `tile`
        or `operand_dtype`.

    Reference: Khosla et al., 2020, arXiv:2004.11362, equation 2; for `distillation`, Li et al.,
    2021, arXiv:2107.07651, equation 6.

    Example:
      >>> x = jnp.eye(2)[jnp.array([0, 0, 1])]
      >>> losses = supervised_contrastive(x, logit_scale=1.0, ids=jnp.array([5, 5, 7]))
      >>> [round(float(x), 4) for x in losses]
      [0.3133, 0.3133, 0.0]
    """
    contrasts = a if b is None else b
    keep = check_rows(a, contrasts, where=where, ids=ids)
    _check_targets(b, ids=ids, targets=targets)
    _check_distillation(distillation, teacher_similarity)
    check_tile(tile)
    n, whole = a.shape[0], targets is not None or teacher_similarity is not None
    if whole and not (tile is None and operand_dtype is None):
        raise ValueError("targets and a teacher are taken whole: expected no tile and no dtype")
    if not whole and not is_dense(n, n, tile=tile, operand_dtype=operand_dtype):
        # Added to the scale: under `shard_map` its gradient is then summed over devices.
        zero = jnp.zeros_like(a, shape=(), dtype=accumulation_dtype(a, contrasts))
        scale = as_scalar(logit_scale, zero, name="logit_scale")
        options = Softmax(scale + zero, tile=tile, operands=operand_dtype)
        labels = None if ids is None else joint_labels(ids, None, k=0)
        if b is None:
            return among_labels(without_absent(a, where), options, labels=labels, where=where)
        columns = Columns(without_absent(b, where), where, labels)
        return one_way(a, columns, options, rows=where)
    candidates = _candidates(keep, exclude_self=b is None)
    logits = kept_dot_products(a, contrasts, rows=keep, columns=keep)
    logits = logits * as_scalar(logit_scale, logits, name="logit_scale")
    positives = candidates & same_id(ids, n=n)
    if targets is None and teacher_similarity is None:
        matched = jnp.any(positives, axis=1, keepdims=True)
        return softmax_loss(logits, candidates=candidates & matched, positives=positives)
    goal = positives.astype(logits.dtype)
    if targets is not None:
        soft = check_matrix(targets, shape=(n, n), name="targets").astype(logits.dtype)
        goal = jnp.where(candidates, soft, 0)
    total = jnp.sum(goal, axis=1, keepdims=True)
    goal = goal / jnp.where(total > 0, total, 1)
    if teacher_similarity is not None:
        taught = check_matrix(teacher_similarity, shape=(n, n), name="teacher_similarity")
        taught = masked_softmax(jax.lax.stop_gradient(taught), where=candidates, axis=1)
        share = as_scalar(distillation, logits, name="distillation")
        goal = (1 - share) * goal + share * taught.astype(goal.dtype)
    return soft_cross_entropy(logits, jnp.where(total > 0, goal, 0), candidates=candidates)


def has_positive(
    ids: Num[Array, " n"], where: Array | None = None, *, exclude_self: bool = True
) -> Bool[Array, " n"]:
    """Which kept rows share their id with a kept row: those that `supervised_contrastive` counts.

    Args:
      ids: integers [n].
      where: bool [n], the kept rows; `None` keeps all.
      exclude_self: a row is no positive of itself, as without `b`. If False every kept row has one.

    Returns:
      Bool [n]; False for rows that are not kept.

    Raises:
      TypeError: if `ids` are not integers or `where` is not boolean.
      ValueError: if a shape does not fit.

    Example:
      >>> has_positive(jnp.array([5, 5, 7])).tolist()
      [True, True, False]
    """
    n = ids.shape[0]
    check_ids(ids, shape=(n,))
    candidates = _candidates(kept_rows(where, n=n), exclude_self=exclude_self)
    return jnp.any(candidates & same_id(ids, n=n), axis=1)


def _candidates(keep: Array, *, exclude_self: bool) -> Array:
    pairs = keep[:, None] & keep[None, :]
    return pairs & ~jnp.eye(keep.shape[0], dtype=bool) if exclude_self else pairs


def _check_targets(b: Array | None, *, ids: Array | None, targets: Array | None) -> None:
    if ids is not None and targets is not None:
        raise ValueError("expected ids or targets, got both")
    if b is None and ids is None and targets is None:
        raise ValueError("without b a row is no positive of itself: give ids or targets")


def _check_distillation(share: ScalarLike, teacher: Array | None) -> None:
    if isinstance(share, float | int) and not 0 <= share <= 1:
        raise ValueError(f"distillation must be in [0, 1], got {share}")
    mixes = not isinstance(share, float | int) or share > 0
    if mixes and teacher is None:
        raise ValueError("distillation needs teacher_similarity, got None")
