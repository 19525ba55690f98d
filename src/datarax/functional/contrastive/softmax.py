"""InfoNCE, from embeddings or from ready similarity matrices."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num, ScalarLike

from datarax.functional.checks import accumulation_dtype, check_floating, common_dtype
from datarax.functional.contrastive.cross_entropy import softmax_loss
from datarax.functional.contrastive.mesh_devices import (
    AxisName,
    Collective,
    Exchange,
    Spread,
    spread_of,
)
from datarax.functional.contrastive.mesh_softmax import (
    ExtraColumns,
    MeshOptions,
    MeshRows,
    mesh_info_nce,
)
from datarax.functional.contrastive.rows import (
    as_optional_scalar,
    as_scalar,
    check_choice,
    check_ids,
    check_label_smoothing,
    check_matrix,
    check_rows,
    check_similarity,
    kept_dot_products,
    kept_rows,
    same_id,
)
from datarax.functional.contrastive.tiled_losses import Columns, Softmax, directed, joint_labels
from datarax.functional.contrastive.tiles import check_tile, is_dense

Directions = Literal["both", "a_to_b", "b_to_a"]


def info_nce(
    a: Num[Array, "n d"],
    b: Num[Array, "m e"],
    *,
    logit_scale: ScalarLike,
    logit_bias: ScalarLike | None = None,
    directions: Directions = "both",
    label_smoothing: float = 0.0,
    where: Array | None = None,
    where_a: Array | None = None,
    where_b: Array | None = None,
    ids: Array | None = None,
    negatives_a: Array | None = None,
    negatives_b: Array | None = None,
    negatives_where: Array | None = None,
    negatives_ids: Array | None = None,
    decoupled: bool = False,
    tile: int | None = None,
    operand_dtype: DTypeLike | None = None,
    axis_name: AxisName | None = None,
    collective: Collective | None = None,
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
        were not in the batch (big_vision's convention).
      where_a, where_b: bool [n], the row has an `a`, a `b`. A row that lacks one has loss 0; the
        half that it has stays a negative of the others (TorchMultimodal's convention of a mask).
      ids: integers [n]; rows that share one are positives of each other.
      negatives_b: [k, d], more columns for `"a_to_b"`: a queue, or given hard negatives.
      negatives_a: [k, d], more columns for `"b_to_a"`. Their gradients flow: stop them outside.
      negatives_where: bool [k], which of the extra columns are there.
      negatives_ids: integers [k]; an extra column with the id of the row is a positive (ALBEF).
      decoupled: the positives leave the denominator (DCL in its cross-modal form, InfoLOOB). A row
        without a negative has loss 0. CLOOB's loss is the sum of the two directions over `s`, each
        of another pair of retrieved embeddings, so call this once with each and divide.
      tile: rows of the blocks of logits. `None` chooses: the dense form while it has at most 2^18
        logits, else blocks of a fixed memory. Blocks need O(n d) and have no forward-mode
        derivative.
      operand_dtype: the embeddings are rounded to it (`jnp.bfloat16`) for the products, in blocks;
        sums and gradients stay at least float32. `None` takes them as they are.
      axis_name: the axis of a mesh over which the rows are spread; every row of every device is a
        negative. Under `shard_map` over it, all arrays with n are a device's own rows, extra
        columns are the same on each device, and so is the loss a device's own. Otherwise the
        arrays are global. `None` takes the axis from the type of `a`; see `spread_of`.
      collective: how devices exchange rows, `"gather"` or `"ring"`; see `mesh_logsumexp` and
        `mesh_rows`. `None` chooses by the memory. On one device it is not read.

    Returns:
      One loss per row, at least float32, in [0, inf) (any sign if decoupled); 0 for `n == 1`. The
      loss and the gradient of a removed row are exactly 0, even if it holds NaN. Reduce it
      yourself: open_clip's loss is the mean.

    Raises:
      TypeError: if an embedding is not floating point, a mask not boolean, ids not integer.
      ValueError: if a shape does not fit, a choice or `label_smoothing` is out of range, an option
        of the extra columns comes without them or without the direction that reads them,
        `negatives_ids` without `ids`, `decoupled` with `label_smoothing`, or no mesh has the axis.

    Reference: Radford et al., 2021, arXiv:2103.00020, figure 3; for `ids`, Khosla et al., 2020,
    arXiv:2004.11362, equation 2; for `negatives_ids`, Li et al., 2021, arXiv:2107.07651, section
    3.2; for `decoupled`, Yeh et al., 2021, arXiv:2110.06848, equation 6, and Fürst et al., 2021,
    arXiv:2110.11316 (InfoLOOB).

    Example:
      >>> losses = info_nce(jnp.eye(2), jnp.eye(2), logit_scale=1.0)
      >>> [round(float(x), 4) for x in losses]
      [0.3133, 0.3133]
    """
    keep = check_rows(a, b, where=where, ids=ids)
    _check_options(directions, label_smoothing=label_smoothing, decoupled=decoupled)
    check_tile(tile)
    n, d = a.shape
    has_a = keep & kept_rows(where_a, n=n, name="where_a")
    has_b = keep & kept_rows(where_b, n=n, name="where_b")
    given = {"negatives_a": negatives_a, "negatives_b": negatives_b}
    k = _extra_columns(given, axis=0, fixed=d, axes="[k, d]")
    extra = kept_rows(negatives_where, n=k, name="negatives_where")
    spread = spread_of(a, axis_name, collective=collective)
    if spread is None and is_dense(n, n + k, tile=tile, operand_dtype=operand_dtype):
        similarity = kept_dot_products(a, b, rows=has_a, columns=has_b)
        return info_nce_from_similarity(
            similarity,
            logit_scale=as_scalar(logit_scale, similarity, name="logit_scale"),
            logit_bias=as_optional_scalar(logit_bias, similarity, name="logit_bias"),
            directions=directions,
            label_smoothing=label_smoothing,
            where=where,
            where_a=where_a,
            where_b=where_b,
            ids=ids,
            negatives_where=negatives_where,
            negatives_ids=negatives_ids,
            decoupled=decoupled,
            **_extra_products(given, a=(a, has_a), b=(b, has_b), there=extra),
        )
    _check_read(directions, "a_to_b", negatives_b=negatives_b)
    _check_read(directions, "b_to_a", negatives_a=negatives_a)
    _check_extra(negatives_where, negatives_ids, ids=ids, k=k)
    scale = _checked_scale(logit_scale, logit_bias, dtype=accumulation_dtype(a, b))
    return _in_blocks(
        MeshRows(a, b, has_a, has_b, ids),
        Softmax(scale, label_smoothing, decoupled, tile, operand_dtype),
        {"a_to_b": negatives_b, "b_to_a": negatives_a},
        directions=directions,
        masked=tuple(where is not None or x is not None for x in (where_a, where_b)),
        negatives_where=negatives_where,
        negatives_ids=negatives_ids,
        spread=spread,
        collective=collective,
    )


def info_nce_from_similarity(
    similarity: Num[Array, "n m"],
    reverse: Num[Array, "..."] | None = None,
    *,
    logit_scale: ScalarLike,
    logit_bias: ScalarLike | None = None,
    directions: Directions = "both",
    label_smoothing: float = 0.0,
    where: Array | None = None,
    where_a: Array | None = None,
    where_b: Array | None = None,
    ids: Array | None = None,
    negatives_a: Array | None = None,
    negatives_b: Array | None = None,
    negatives_where: Array | None = None,
    negatives_ids: Array | None = None,
    decoupled: bool = False,
) -> Float[Array, " n"]:
    r"""`info_nce` of a similarity that is ready: late interaction, volumes, a learned score.

    Args:
      similarity: [n, n], of row `i` of `a` (axis 0) with row `j` of `b` (axis 1).
      reverse: [n, n], of row `i` of `b` with row `j` of `a`, where that is another number, as in
        late interaction; `None` is the transpose.
      logit_scale, logit_bias, directions, label_smoothing: as in `info_nce`.
      where, where_a, where_b, ids: as in `info_nce`. Entries of a row or a column that is not
        there may hold NaN or inf.
      negatives_b: [n, k], the similarities of the rows of `a` with extra columns.
      negatives_a: [n, k], those of the rows of `b` with extra columns.
      negatives_where, negatives_ids, decoupled: as in `info_nce`.

    Returns:
      One loss per row, as `info_nce`.

    Raises:
      TypeError: as `info_nce`.
      ValueError: as `info_nce`; if `similarity` is not square; or if `directions` does not read
        `reverse`.

    Reference: Radford et al., 2021, arXiv:2103.00020, figure 3.

    Example:
      >>> losses = info_nce_from_similarity(jnp.eye(2), logit_scale=1.0)
      >>> [round(float(x), 4) for x in losses]
      [0.3133, 0.3133]
    """
    similarity, keep = check_similarity(similarity, where=where, ids=ids)
    n = similarity.shape[0]
    has_a = keep & kept_rows(where_a, n=n, name="where_a")
    has_b = keep & kept_rows(where_b, n=n, name="where_b")
    _check_options(directions, label_smoothing=label_smoothing, decoupled=decoupled)
    _check_read(directions, "a_to_b", negatives_b=negatives_b)
    _check_read(directions, "b_to_a", negatives_a=negatives_a, reverse=reverse)
    if reverse is not None:
        reverse = check_matrix(reverse, shape=(n, n), name="reverse")
    given = {"negatives_a": negatives_a, "negatives_b": negatives_b}
    k = _extra_columns(given, axis=1, fixed=n, axes="[n, k]")
    _check_extra(negatives_where, negatives_ids, ids=ids, k=k)
    sides = {
        "a_to_b": (similarity, has_b, negatives_b),
        "b_to_a": (similarity.T if reverse is None else reverse, has_a, negatives_a),
    }
    losses = [
        _one_direction(
            *sides[direction],
            rows=has_a & has_b,
            positives=same_id(ids, n=n),
            extra=kept_rows(negatives_where, n=k),
            extra_positives=_matches(ids, negatives_ids, n=n, k=k),
            scale=as_scalar(logit_scale, similarity, name="logit_scale"),
            bias=as_optional_scalar(logit_bias, similarity, name="logit_bias"),
            label_smoothing=label_smoothing,
            decoupled=decoupled,
        )
        for direction in (("a_to_b", "b_to_a") if directions == "both" else (directions,))
    ]
    return sum(losses[1:], losses[0]) / len(losses)


def _in_blocks(
    rows: MeshRows,
    softmax: Softmax,
    more: dict[str, Array | None],
    *,
    directions: Directions,
    masked: tuple[bool, ...],
    negatives_where: Array | None,
    negatives_ids: Array | None,
    spread: Spread | None,
    collective: Collective | None,
) -> Array:
    """The losses over blocks of logits, with `more` columns of each direction."""
    k = next((len(x) for x in more.values() if x is not None), 0)
    if spread is not None:
        there = kept_rows(negatives_where, n=k, name="negatives_where")
        options = MeshOptions(
            tuple(more) if directions == "both" else (directions,),
            label_smoothing=softmax.label_smoothing,
            decoupled=softmax.decoupled,
            exchange=Exchange(collective, softmax.tile, softmax.operands),
        )
        a, b = common_dtype(rows.a, rows.b)
        rows = rows._replace(a=a, b=b)
        columns = _each(more, lambda x: ExtraColumns(x, there, negatives_ids))
        return mesh_info_nce(spread, rows, scale=softmax.scale, extra=columns, options=options)
    # Of `a`, and added to the scale: under `shard_map` its gradient is then summed over devices.
    wide = jnp.zeros_like(rows.a, shape=(), dtype=softmax.scale.dtype)
    sides = ((rows.a, rows.has_a), (rows.b, rows.has_b))
    a, b = (Columns(x, has if some else None) for (x, has), some in zip(sides, masked, strict=True))
    return directed(
        a,
        b,
        softmax._replace(scale=softmax.scale + wide),
        directions=directions,
        labels=None if rows.ids is None else joint_labels(rows.ids, negatives_ids, k=k),
        extra=_each(more, lambda x: Columns(x, negatives_where)),
    )


def _one_direction(
    similarity: Array,
    columns: Array,
    negatives: Array | None,
    *,
    rows: Array,
    positives: Array,
    extra: Array,
    extra_positives: Array,
    scale: Array,
    bias: Array | None,
    label_smoothing: float,
    decoupled: bool,
) -> Array:
    """The losses of the rows of a similarity [n, n], with `negatives` [n, k] as more columns."""
    if negatives is not None:
        similarity = jnp.concatenate([similarity, negatives.astype(similarity.dtype)], axis=1)
        columns = jnp.concatenate([columns, extra])
        positives = jnp.concatenate([positives, extra_positives], axis=1)
    candidates = rows[:, None] & columns[None, :]
    logits = jnp.where(candidates, similarity, 0) * scale
    if bias is not None:
        logits = logits + bias
    return softmax_loss(
        logits,
        candidates=candidates,
        positives=candidates & positives,
        label_smoothing=label_smoothing,
        decoupled=decoupled,
    )


def _extra_products(
    given: dict[str, Array | None],
    *,
    a: tuple[Array, Array],
    b: tuple[Array, Array],
    there: Array,
) -> dict[str, Array]:
    """The similarities [n, k] of rows, and which are kept, with the extra columns by name."""
    sides = (("negatives_a", *b), ("negatives_b", *a))
    return {
        name: kept_dot_products(rows, x, rows=has, columns=there)
        for name, rows, has in sides
        if (x := given[name]) is not None
    }


def _each(given: dict[str, Array | None], make: Callable[[Array], Any]) -> dict[str, Any]:
    """What `make` makes of each array that is given, `None` of the others."""
    return {name: None if x is None else make(x) for name, x in given.items()}


def _matches(ids: Array | None, negatives_ids: Array | None, *, n: int, k: int) -> Array:
    """Bool [n, k], which extra columns are positives."""
    if ids is None or negatives_ids is None:
        return jnp.zeros((n, k), bool)
    # NumPy's, since jnp's strict promotion has none; canonical, since there may be no int64.
    wide = jax.dtypes.canonicalize_dtype(np.promote_types(ids.dtype, negatives_ids.dtype))
    return ids.astype(wide)[:, None] == negatives_ids.astype(wide)[None, :]


def _checked_scale(logit_scale: Any, logit_bias: Any, *, dtype: DTypeLike) -> Array:
    """The scale in that dtype; the bias is looked at alone, since it cancels."""
    like = jnp.zeros((), dtype)
    as_optional_scalar(logit_bias, like, name="logit_bias")
    return as_scalar(logit_scale, like, name="logit_scale")


def _check_options(directions: str, *, label_smoothing: float, decoupled: bool) -> None:
    check_choice(directions, Directions, name="directions")
    check_label_smoothing(label_smoothing)
    if decoupled and label_smoothing > 0:
        raise ValueError(
            f"decoupled has no target to smooth: label_smoothing must be 0, got {label_smoothing}"
        )


def _check_read(directions: str, reader: str, **arrays: Array | None) -> None:
    """Reject an argument that only a direction reads which does not run."""
    for name, x in arrays.items():
        if x is not None and directions not in ("both", reader):
            raise ValueError(f"{name} is read by direction {reader!r}, got {directions!r}")


def _extra_columns(given: dict[str, Array | None], *, axis: int, fixed: int, axes: str) -> int:
    """The number k of extra columns, on `axis` of those that are given; 0 for none."""
    shapes = {name: x.shape for name, x in given.items() if x is not None}
    check_floating(**{name: x for name, x in given.items() if x is not None})
    for name, shape in shapes.items():
        if len(shape) != 2 or shape[1 - axis] != fixed:
            wanted = axes.replace("d" if axis == 0 else "n", str(fixed))
            raise ValueError(f"{name} must have shape {wanted}, got {shape}")
    counts = {shape[axis] for shape in shapes.values()}
    if len(counts) > 1:
        raise ValueError(f"negatives_a and negatives_b must be as many, got shapes {shapes}")
    return counts.pop() if counts else 0


def _check_extra(
    where: Array | None, negatives_ids: Array | None, *, ids: Array | None, k: int
) -> None:
    if k == 0 and (where is not None or negatives_ids is not None):
        raise ValueError("negatives_where and negatives_ids need negatives_a or negatives_b")
    if negatives_ids is not None and ids is None:
        raise ValueError("negatives_ids need ids to compare with, got ids=None")
    kept_rows(where, n=k, name="negatives_where")
    check_ids(negatives_ids, shape=(k,), name="negatives_ids")
