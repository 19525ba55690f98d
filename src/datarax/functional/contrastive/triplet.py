"""Hinges on triplets of an anchor, its positive and negatives of the batch."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Num, ScalarLike

from datarax.functional.contrastive.rows import (
    as_scalar,
    check_choice,
    check_rows,
    kept_dot_products,
    same_id,
)
from datarax.functional.contrastive.softmax import Directions
from datarax.functional.masking import safe_l2_norm, safe_l2_normalize
from datarax.functional.similarity import pairwise_squared_distance

Mining = Literal["sum", "hard", "semi_hard"]
Distance = Literal["dot", "cosine", "euclidean"]


def triplet(
    a: Num[Array, "n d"],
    b: Num[Array, "m e"],
    *,
    margin: ScalarLike = 0.2,
    mining: Mining = "sum",
    directions: Directions = "both",
    distance: Distance = "dot",
    where: Array | None = None,
    ids: Array | None = None,
) -> Float[Array, " n"]:
    r"""Triplet loss $[m - S_{ii} + S_{ij}]_+$ over negatives `j` of the batch, $S = a b^\top$.

    Args:
      a, b: embeddings; row `i` of one is the positive of row `i` of the other. Not normalised here.
      margin: `m`, in units of the similarity.
      mining: `"sum"` adds the hinges of all negatives (VSE). `"hard"` takes the most similar
        negative (VSE++) and, with ids, the least similar positive (batch hard). `"semi_hard"`
        takes the most similar of the negatives that are less similar than the positive; without
        one the loss is 0 (some code then takes the least similar of all).
      directions: the mean of both, or one: `"a_to_b"` has anchors `a`. VSE's code adds the two.
      distance: `S` is the dot product, the cosine, or minus the Euclidean distance.
      where: bool [n]. A row with False is neither anchor, positive nor negative.
      ids: integers [n]; rows that share one are no negatives of each other. For labelled rows of
        one modality give `a` twice; the row itself is then the easiest positive.

    Returns:
      One loss per row, at least float32, in [0, inf). 0 without a negative, so for `n == 1`. The
      loss and the gradient of a removed row are exactly 0, even if it holds NaN. For equal vectors
      the gradient of the Euclidean distance is 0.

    Raises:
      TypeError: if an embedding is not floating point, `where` not boolean, `ids` not integer.
      ValueError: if a shape does not fit or a choice is unknown.

    Reference: Faghri et al., 2017, arXiv:1707.05612, equations 5 and 6 (VSE++); Hermans et al.,
    2017, arXiv:1703.07737, equation 5 (batch hard); Schroff et al., 2015, arXiv:1503.03832,
    section 3.2 (semi-hard).

    Example:
      >>> losses = triplet(jnp.eye(2), jnp.eye(2)[::-1], margin=0.2)
      >>> [round(float(x), 4) for x in losses]
      [1.2, 1.2]
    """
    keep = check_rows(a, b, where=where, ids=ids)
    check_choice(mining, Mining, name="mining")
    check_choice(directions, Directions, name="directions")
    check_choice(distance, Distance, name="distance")
    similarity = _similarity(a, b, keep, distance=distance)
    gap = as_scalar(margin, similarity, name="margin")
    pairs = keep[:, None] & keep[None, :]
    positives = pairs & same_id(ids, n=a.shape[0])
    sides = {
        "both": [similarity, similarity.T],
        "a_to_b": [similarity],
        "b_to_a": [similarity.T],
    }
    losses = [
        _hinges(s, gap, mining=mining, positives=positives, negatives=pairs & ~positives)
        for s in sides[directions]
    ]
    return sum(losses[1:], losses[0]) / len(losses)


def _similarity(a: Array, b: Array, keep: Array, *, distance: str) -> Array:
    a, b = (jnp.where(keep[:, None], x, 0) for x in (a, b))
    if distance == "cosine":
        a, b = safe_l2_normalize(a), safe_l2_normalize(b)
    if distance != "euclidean":
        return kept_dot_products(a, b, rows=keep, columns=keep)
    squares = pairwise_squared_distance(a, b)
    apart = squares > 0
    distances = jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1)), 0)
    # The own pair is near 0 when trained, where the difference of squares is all rounding.
    own = safe_l2_norm(a.astype(squares.dtype) - b.astype(squares.dtype))
    return -jnp.where(jnp.eye(len(own), dtype=bool), own[:, None], distances)


def _hinges(
    similarity: Array, margin: Array, *, mining: str, positives: Array, negatives: Array
) -> Array:
    """The losses of the rows of a similarity [n, n]."""
    own = jnp.diagonal(similarity)[:, None]
    if mining == "sum":
        hinges = jnp.maximum(margin - own + similarity, 0)
        return jnp.sum(jnp.where(negatives, hinges, 0), axis=1)
    if mining == "hard":
        own = -_largest(-similarity, positives)[:, None]
    else:
        negatives = negatives & (similarity < own)
    hinge = jnp.maximum(margin - own[:, 0] + _largest(similarity, negatives), 0)
    return jnp.where(jnp.any(negatives, axis=1), hinge, 0)


def _largest(x: Array, where: Array) -> Array:
    """The largest kept entry of each row, 0 where none is kept."""
    peak = jnp.max(jnp.where(where, x, -jnp.inf), axis=1, initial=-jnp.inf)
    return jnp.where(jnp.any(where, axis=1), peak, 0)
