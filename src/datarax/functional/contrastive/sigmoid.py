"""The sigmoid loss, from embeddings or from a ready similarity matrix."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num, ScalarLike

from datarax.functional.checks import accumulation_dtype, common_dtype
from datarax.functional.contrastive.marks import Marks, without_absent
from datarax.functional.contrastive.mesh_devices import (
    AxisName,
    Collective,
    Exchange,
    Spread,
    spread_of,
)
from datarax.functional.contrastive.mesh_sigmoid import SigmoidRows, mesh_sigmoid
from datarax.functional.contrastive.rows import (
    as_optional_scalar,
    as_scalar,
    check_matrix,
    check_rows,
    check_similarity,
    kept_dot_products,
    same_id,
)
from datarax.functional.contrastive.sigmoid_rows import sigmoid_rows
from datarax.functional.contrastive.tiled_sigmoid import Line
from datarax.functional.contrastive.tiles import Tiling, check_tile, is_dense


def sigmoid_contrastive(
    a: Num[Array, "n d"],
    b: Num[Array, "m e"],
    *,
    logit_scale: ScalarLike,
    logit_bias: ScalarLike | None = None,
    relative_bias: ScalarLike | None = None,
    where: Array | None = None,
    ids: Array | None = None,
    targets: Array | None = None,
    tile: int | None = None,
    operand_dtype: DTypeLike | None = None,
    axis_name: AxisName | None = None,
    collective: Collective | None = None,
) -> Float[Array, " n"]:
    r"""Sigmoid loss over all pairs, $\ell_i = -\sum_j \log \sigma(z_{ij} (s\,a_i b_j^\top + c))$.

    Here $z_{ij}$ is 1 for a positive pair and -1 for any other. With soft targets $y$ it is
    $\ell_i = -\sum_j y_{ij} \log \sigma(L_{ij}) + (1 - y_{ij}) \log \sigma(-L_{ij})$.

    Args:
      a, b: embeddings; row `i` of one is the positive of row `i` of the other. Not normalised here.
      logit_scale: the inverse temperature `s` itself, neither exponentiated nor clamped here.
      logit_bias: the constant `c`; see `sigmoid_bias_init`.
      relative_bias: `r` of the other form, $L = s (a b^\top - r)$, so $c = -s r$: the similarity
        at which a pair is as likely a match as not.
      where: bool [n]. A row with False is removed from rows and columns.
      ids: integers [n]; rows that share one are positives of each other.
      targets: [n, n] in [0, 1], how much row `i` of `a` matches row `j` of `b`, in place of ids.
        They are O(n^2) themselves, and are taken by the dense form.
      tile, operand_dtype: blocks of logits and the rounding of the products, as in `info_nce`.
      axis_name, collective: devices over which the rows are spread, as in `info_nce`; under
        `shard_map`, `targets` are a device's own rows [b, n].

    Returns:
      One sum over the columns per row of `a`, at least float32, in [0, inf). Its mean over rows is
      SigLIP's loss. The loss and the gradient of a removed row are exactly 0, even if it holds NaN.
      For `n == 1` there is no negative, and the positive term is left.

    Raises:
      TypeError: if an embedding or `targets` is not floating point, `where` not boolean, `ids` not
        integer.
      ValueError: if a shape does not fit, not exactly one bias is given, both ids and targets,
        targets with `tile` or `operand_dtype`, or no mesh has the axis.

    Reference: Zhai et al., 2023, arXiv:2303.15343, equation 1 and algorithm 1; for
    `relative_bias`, Bangachev et al., 2025, arXiv:2509.18552.

    Example:
      >>> losses = sigmoid_contrastive(jnp.eye(2), jnp.eye(2), logit_scale=1.0, logit_bias=0.0)
      >>> [round(float(x), 4) for x in losses]
      [1.0064, 1.0064]
    """
    keep = check_rows(a, b, where=where, ids=ids)
    check_tile(tile)
    n = a.shape[0]
    if targets is not None and not (tile is None and operand_dtype is None):
        raise ValueError("targets are taken whole: expected no tile and no operand_dtype with them")
    spread = spread_of(a, axis_name, collective=collective)
    dense = targets is not None or is_dense(n, n, tile=tile, operand_dtype=operand_dtype)
    if spread is not None or not dense:
        _check_biases(logit_bias, relative_bias)
        # Of `a`, and added below: under `shard_map` a gradient is then summed over devices.
        wide = jnp.zeros_like(a, shape=(), dtype=accumulation_dtype(a, b))
        scale = as_scalar(logit_scale, wide, name="logit_scale")
        if relative_bias is None:
            bias = as_scalar(logit_bias, wide, name="logit_bias")
        else:
            bias = -scale * as_scalar(relative_bias, wide, name="relative_bias")
        if spread is not None:
            x, y = common_dtype(a, b)
            return _over_mesh(
                spread,
                SigmoidRows(x, y, keep, ids, targets),
                Line(scale, bias),
                exchange=Exchange(collective, tile, operand_dtype),
            )
        line = Line(scale + wide, bias + wide)
        return _tiled(a, b, line, where=where, ids=ids, tile=tile, operands=operand_dtype)
    similarity = kept_dot_products(a, b, rows=keep, columns=keep)
    return sigmoid_from_similarity(
        similarity,
        logit_scale=as_scalar(logit_scale, similarity, name="logit_scale"),
        logit_bias=as_optional_scalar(logit_bias, similarity, name="logit_bias"),
        relative_bias=as_optional_scalar(relative_bias, similarity, name="relative_bias"),
        where=where,
        ids=ids,
        targets=targets,
    )


def sigmoid_from_similarity(
    similarity: Num[Array, "n m"],
    *,
    logit_scale: ScalarLike,
    logit_bias: ScalarLike | None = None,
    relative_bias: ScalarLike | None = None,
    where: Array | None = None,
    ids: Array | None = None,
    targets: Array | None = None,
) -> Float[Array, " n"]:
    r"""`sigmoid_contrastive` of a similarity that is ready.

    Args:
      similarity: [n, n], of row `i` of `a` (axis 0) with row `j` of `b` (axis 1).
      logit_scale, logit_bias, relative_bias: as in `sigmoid_contrastive`.
      where, ids, targets: as in `sigmoid_contrastive`. Entries of a removed row or column may hold
        NaN or inf.

    Returns:
      One sum over the columns per row, as `sigmoid_contrastive`. For a similarity of tokens that
      is not symmetric, take the mean with that of the other direction.

    Raises:
      TypeError: as `sigmoid_contrastive`.
      ValueError: as `sigmoid_contrastive`, or if `similarity` is not square.

    Reference: Zhai et al., 2023, arXiv:2303.15343, equation 1.

    Example:
      >>> losses = sigmoid_from_similarity(jnp.eye(2), logit_scale=1.0, logit_bias=0.0)
      >>> [round(float(x), 4) for x in losses]
      [1.0064, 1.0064]
    """
    similarity, keep = check_similarity(similarity, where=where, ids=ids)
    _check_biases(logit_bias, relative_bias)
    if ids is not None and targets is not None:
        raise ValueError("expected ids or targets, got both")
    pairs = keep[:, None] & keep[None, :]
    logits = jnp.where(pairs, similarity, 0)
    if relative_bias is not None:
        logits = logits - as_scalar(relative_bias, logits, name="relative_bias")
    logits = logits * as_scalar(logit_scale, logits, name="logit_scale")
    if logit_bias is not None:
        logits = logits + as_scalar(logit_bias, logits, name="logit_bias")
    n = similarity.shape[0]
    if targets is None:
        losses = jax.nn.softplus(jnp.where(same_id(ids, n=n), -logits, logits))
    else:
        soft = check_matrix(targets, shape=(n, n), name="targets").astype(logits.dtype)
        soft = jnp.where(pairs, soft, 0)
        losses = soft * jax.nn.softplus(-logits) + (1 - soft) * jax.nn.softplus(logits)
    return jnp.sum(jnp.where(pairs, losses, 0), axis=1)


def _over_mesh(spread: Spread, rows: SigmoidRows, line: Line, *, exchange: Exchange) -> Array:
    """The losses of rows that lie on several devices."""
    if rows.targets is not None:
        if rows.ids is not None:
            raise ValueError("expected ids or targets, got both")
        n = rows.a.shape[0]
        columns = n if spread.mesh is not None else n * spread.count
        targets = check_matrix(rows.targets, shape=(n, columns), name="targets")
        rows = rows._replace(targets=targets)
    return mesh_sigmoid(spread, rows, line=line, exchange=exchange)


def _tiled(
    a: Array,
    b: Array,
    line: Line,
    *,
    where: Array | None,
    ids: Array | None,
    tile: int | None,
    operands: DTypeLike | None,
) -> Array:
    """The losses over blocks of logits."""
    x, y = (without_absent(v, where) for v in common_dtype(a, b))
    labels = jnp.arange(len(x), dtype=jnp.int32) if ids is None else ids
    losses = sigmoid_rows(
        Tiling.of(x, y, tile=tile, operands=operands, chunked=True),
        x,
        y,
        line,
        Marks(where, where, labels, labels),
    )
    return losses if where is None else jnp.where(where, losses, 0)


def _check_biases(logit_bias: ScalarLike | None, relative_bias: ScalarLike | None) -> None:
    if (logit_bias is None) == (relative_bias is None):
        raise ValueError(
            "expected exactly one of logit_bias and relative_bias, "
            f"got {'neither' if logit_bias is None else 'both'}"
        )
