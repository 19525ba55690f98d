"""Contrast of a modality with several at once by the volume or the triangle that they span."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num, ScalarLike

from datarax.functional.checks import (
    accumulation_dtype,
    check_floating,
    check_rank,
    check_same_shape,
)
from datarax.functional.contrastive.row_blocks import (
    Similarity,
    similarity_info_nce,
    similarity_tile,
)
from datarax.functional.contrastive.rows import (
    as_scalar,
    check_choice,
    check_ids,
    check_label_smoothing,
    check_modalities,
    kept_rows,
)
from datarax.functional.contrastive.softmax import Directions, info_nce_from_similarity
from datarax.functional.contrastive.tiles import check_tile, is_dense
from datarax.functional.masking import safe_l2_norm, safe_l2_normalize
from datarax.functional.similarity import pairwise_dot_product, pairwise_squared_distance

Shape = Literal["volume", "triangle", "triangle_root"]


def volume_contrastive(
    embeddings: Sequence[Num[Array, "..."]],
    *,
    logit_scale: ScalarLike,
    shape: Shape = "volume",
    presence: Sequence[Array] | None = None,
    directions: Directions = "both",
    label_smoothing: float = 0.0,
    where: Array | None = None,
    ids: Array | None = None,
    tile: int | None = None,
) -> tuple[Float[Array, " n"], Bool[Array, " n"]]:
    r"""InfoNCE with the logits $L_{ij} = -s\,V(x^1_i, x^2_j, \dots, x^M_j)$.

    The first modality is the anchor: `"a_to_b"` contrasts an anchor with the others of every row,
    `"b_to_a"` the others of a row with every anchor. `V` is small where the vectors point one way.

    Args:
      embeddings: M >= 2 arrays [n, d]. Not normalised here; GRAM and TRIANGLE take unit vectors.
      logit_scale: the inverse temperature `s` itself.
      shape: `"volume"` is `gram_volume` (GRAM); `"triangle"` is `triangle_area` of M == 3 as
        TRIANGLE's code has it, without the root; `"triangle_root"` with it, as in the paper.
      presence: M arrays bool [n]. A modality other than the anchor that a row lacks drops out of
        its volume; a row needs the anchor and one other. A triangle needs all three.
      directions, label_smoothing, where, ids: as in `info_nce`. GRAM smooths by 0.1.
      tile: rows of the blocks of logits; `None` chooses, and takes small batches whole. In
        blocks there is a gradient, but no forward mode.

    Returns:
      The losses [n], at least float32, in [0, inf), and bool [n], the rows that are in the batch.
      The other rows have loss and gradient exactly 0, whatever they hold. 0 for `n == 1`.

    Raises:
      TypeError: if an array is not floating point, a mask not boolean, ids not integer.
      ValueError: if M < 2 (M != 3 for a triangle), lengths or shapes differ, a choice is unknown.

    Reference: Cicchetti et al., 2024, arXiv:2412.11959 (GRAM); Cicchetti et al., 2025,
    arXiv:2509.24734 (TRIANGLE).

    Example:
      >>> losses, used = volume_contrastive([jnp.eye(3)] * 3, logit_scale=1.0)
      >>> [round(float(x), 4) for x in losses], used.tolist()
      ([1.0986, 1.0986, 1.0986], [True, True, True])
    """
    masks = check_modalities(embeddings, presence)
    check_choice(shape, Shape, name="shape")
    check_tile(tile)
    if shape != "volume" and len(embeddings) != 3:
        raise ValueError(f"shape={shape!r} needs 3 modalities, got {len(embeddings)}")
    others = jnp.stack(masks[1:], axis=1)
    enough = jnp.any(others, axis=1) if shape == "volume" else jnp.all(others, axis=1)
    used = kept_rows(where, n=masks[0].shape[0]) & masks[0] & enough
    anchor, *rest = (
        jnp.where((used & mask)[:, None], x, 0) for x, mask in zip(embeddings, masks, strict=True)
    )
    if shape == "volume":
        columns: Any = _spans(rest, masks[1:], wide=accumulation_dtype(*embeddings))
    else:
        columns = tuple(rest)
    options: dict[str, Any] = {
        "directions": directions,
        "label_smoothing": label_smoothing,
        "where": used,
        "ids": ids,
    }
    n = len(anchor)
    if is_dense(n, n, tile=tile, operand_dtype=None):
        logits = _SIMILARITIES[shape](anchor, columns)
        return info_nce_from_similarity(logits, logit_scale=logit_scale, **options), used
    # Added to the scale: under `shard_map` its gradient is then summed over devices.
    wide = jnp.zeros_like(anchor, shape=(), dtype=accumulation_dtype(*embeddings))
    check_choice(directions, Directions, name="directions")
    check_label_smoothing(label_smoothing)
    check_ids(ids, shape=(n,))
    if tile is None:
        tile = similarity_tile(n, arrays=2 * len(embeddings), itemsize=wide.dtype.itemsize)
    scale = as_scalar(logit_scale, wide, name="logit_scale")
    losses = similarity_info_nce(
        _SIMILARITIES[shape], anchor, columns, scale=scale + wide, tile=tile, **options
    )
    return losses, used


def gram_volume(
    anchor: Num[Array, "n d"],
    others: Sequence[Num[Array, "m e"]],
    *,
    presence: Sequence[Array] | None = None,
) -> Float[Array, "n m"]:
    r"""Volume of the parallelotope of an anchor and the others, $V_{ij} = \sqrt{\det G_{ij}}$.

    $G_{ij}$ is the Gram matrix of anchor `i` and the others of row `j`. With $O_j$ that of the
    others and $v_{ij}$ the products of the anchor with them, Schur's complement without its
    division is $\det G_{ij} = |x_i|^2 \det O_j - v_{ij}^\top \mathrm{adj}(O_j)\,v_{ij}$, which is
    a polynomial: finite, with finite derivatives, for dependent vectors too.

    Args:
      anchor: [n, d].
      others: one or more arrays [m, d].
      presence: as many masks bool [m]; a modality that a row lacks drops out of its Gram matrix.

    Returns:
      The volumes, at least float32, in [0, inf). The root has an infinite slope at 0, where the
      determinant of unit vectors is nothing but rounding. Below t = 32 units of rounding
      (sqrt(t) is 2e-3 in float32, 8e-8 in float64) it is therefore continued by the parabola
      $\sqrt t\,(3u - u^2)/2$, $u = \det / t$, which joins it with its slope and is 0 at 0.
      A zero vector gives volume and gradient 0.

    Raises:
      TypeError: if an array is not floating point or a mask not boolean.
      ValueError: if lengths or shapes do not fit.

    Reference: Cicchetti et al., 2024, arXiv:2412.11959.

    Example:
      >>> gram_volume(jnp.array([[2.0, 0.0], [0.0, 3.0]]), [jnp.array([[0.0, 1.0]])])
      Array([[2.],
             [0.]], dtype=float32)
    """
    masks = check_modalities(others, presence, name="others", least=1)
    _check_widths(anchor=anchor, others=others[0])
    return _volumes(anchor, _spans(list(others), masks, wide=accumulation_dtype(anchor, *others)))


def triangle_area(
    a: Num[Array, "n d"], b: Num[Array, "m e"], c: Num[Array, "m e"], *, root: bool = True
) -> Float[Array, "n m"]:
    r"""Area of the triangle $a_i, b_j, c_j$: $\tfrac12 \sqrt{|u|^2 |v|^2 - (u \cdot v)^2}$.

    Here $u = a_i - b_j$ and $v = a_i - c_j$; all comes from matrices of dot products.

    Args:
      a: [n, d].
      b, c: [m, d].
      root: False leaves the root out, as TRIANGLE's code does: then it is twice the squared area.

    Returns:
      The areas [n, m], at least float32, in [0, inf). The root is continued to 0 as in
      `gram_volume`, in units of the fourth power of the largest norm of the three.

    Raises:
      TypeError: if an array is not floating point.
      ValueError: if a shape does not fit.

    Reference: Cicchetti et al., 2025, arXiv:2509.24734.

    Example:
      >>> a, b, c = jnp.zeros((1, 2)), jnp.array([[3.0, 0.0]]), jnp.array([[0.0, 4.0]])
      >>> triangle_area(a, b, c)
      Array([[6.]], dtype=float32)
    """
    _check_widths(a=a, b=b)
    check_same_shape(b=b, c=c)
    check_floating(c=c)
    wide = accumulation_dtype(a, b, c)
    a, b, c = (x.astype(wide) for x in (a, b, c))
    ab, ac = pairwise_dot_product(a, b), pairwise_dot_product(a, c)
    aa = jnp.sum(a**2, axis=1)[:, None]
    bb, cc = jnp.sum(b**2, axis=1)[None, :], jnp.sum(c**2, axis=1)[None, :]
    cross = aa - ab - ac + jnp.sum(b * c, axis=1)[None, :]
    squares = pairwise_squared_distance(a, b) * pairwise_squared_distance(a, c)
    if not root:
        return jnp.maximum(squares - cross**2, 0) / 2
    largest = jax.lax.stop_gradient(jnp.maximum(aa, jnp.maximum(bb, cc)))
    threshold = 32 * jnp.finfo(wide).eps * largest**2
    return _root(squares - cross**2, jnp.where(threshold > 0, threshold, 1)) / 2


class _Spans(NamedTuple):
    """Of the others of each row: unit vectors, the Gram matrix's adjugate and determinant, and the
    product of the norms.
    """

    units: tuple[Array, ...]
    adjugate: Array
    determinant: Array
    size: Array


def _spans(others: list[Array], masks: list[Array], *, wide: Any) -> _Spans:
    rows = jnp.stack([x.astype(wide) for x in others], axis=1)
    there = jnp.stack(masks, axis=1)
    rows = jnp.where(there[:, :, None], rows, 0)
    sizes = jnp.prod(jnp.where(there, safe_l2_norm(rows), 1), axis=1)
    units = safe_l2_normalize(rows)
    gram = jnp.einsum("mkd,mld->mkl", units, units, precision=jax.lax.Precision.HIGHEST)
    gram = jnp.where(there[:, :, None] & there[:, None, :], gram, jnp.eye(len(others), dtype=wide))
    adjugate, determinant = _adjugate(gram)
    return _Spans(tuple(units[:, k] for k in range(len(others))), adjugate, determinant, sizes)


def _volumes(anchor: Array, spans: _Spans) -> Array:
    wide = spans.size.dtype
    norm, unit = safe_l2_norm(anchor.astype(wide)), safe_l2_normalize(anchor.astype(wide))
    products = [pairwise_dot_product(unit, x) for x in spans.units]
    whole = jnp.sum(unit**2, axis=1)[:, None] * spans.determinant[None, :]
    # The adjugate times the products first: of alike vectors that is 0, exactly.
    removed = jnp.zeros_like(whole)
    for k, x in enumerate(products):
        terms = [spans.adjugate[None, :, k, l] * y for l, y in enumerate(products)]
        removed = removed + x * sum(terms[1:], terms[0])
    threshold = jnp.asarray(32 * jnp.finfo(wide).eps, wide)
    return norm[:, None] * spans.size[None, :] * _root(whole - removed, threshold)


def _near_volume(anchor: Array, spans: _Spans) -> Array:
    return -_volumes(anchor, spans)


def _near_triangle(a: Array, others: tuple[Array, Array]) -> Array:
    return -triangle_area(a, *others, root=False)


def _near_triangle_root(a: Array, others: tuple[Array, Array]) -> Array:
    return -triangle_area(a, *others)


_SIMILARITIES: dict[str, Similarity] = {
    "volume": _near_volume,
    "triangle": _near_triangle,
    "triangle_root": _near_triangle_root,
}


def _root(x: Array, threshold: Array) -> Array:
    """sqrt(x), continued below the threshold by the parabola through 0 with the same slope."""
    large = x >= threshold
    share = jnp.where(large, 0, jnp.maximum(x, 0)) / threshold
    near = jnp.sqrt(threshold) * (3 * share - share**2) / 2
    return jnp.where(large, jnp.sqrt(jnp.where(large, x, threshold)), near)


def _adjugate(matrix: Array) -> tuple[Array, Array]:
    """The adjugates [m, k, k] and determinants [m], by Faddeev and LeVerrier: no division by data.

    With B_1 = I and B_{i+1} = A B_i - tr(A B_i)/i I, adj(A) = (-1)^{k-1} B_k and
    det(A) = tr(A adj(A))/k.
    """
    k = matrix.shape[-1]
    identity = jnp.eye(k, dtype=matrix.dtype)[None]
    adjugate = jnp.broadcast_to(identity, matrix.shape)
    for i in range(1, k):
        product = jnp.matmul(matrix, adjugate, precision=jax.lax.Precision.HIGHEST)
        trace = jnp.trace(product, axis1=1, axis2=2)[:, None, None]
        adjugate = trace / i * identity - product
    return adjugate, jnp.einsum("mkl,mlk->m", matrix, adjugate) / k


def _check_widths(**pair: Array) -> None:
    check_floating(**pair)
    check_rank(2, axes="[n, d]", **pair)
    if len({x.shape[1] for x in pair.values()}) > 1:
        listed = ", ".join(f"{name} {x.shape}" for name, x in pair.items())
        raise ValueError(f"expected equal widths, got {listed}")
