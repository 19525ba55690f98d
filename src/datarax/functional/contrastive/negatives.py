"""Drawing a hard negative for each row, as a matching head needs."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Num, ScalarLike

from datarax.functional.checks import accumulation_dtype, broadcast_mask, check_floating, check_rank
from datarax.functional.contrastive.rows import as_scalar, check_ids


def sample_hard_negatives(
    key: Array | None,
    similarity: Num[Array, "n m"],
    *,
    where: Array | None = None,
    ids: Array | None = None,
    margin: ScalarLike | None = None,
) -> tuple[Int[Array, " n"], Bool[Array, " n"]]:
    r"""One negative a row, drawn with probability $\propto e^{S_{ij}}$ among its candidates.

    Args:
      key: a PRNG key; `None` takes the most similar candidate, the first of equals.
      similarity: logits [n, m], m >= n, scaled as they shall be drawn; column `i` is the positive
        of row `i`, and columns beyond n (a queue) are negatives only. For negatives of the other
        side give the transpose and another key.
      where: bool, broadcastable to [n, m]: the columns that may be drawn. To leave rows out too,
        give `rows[:, None] & columns[None, :]`.
      ids: integers [m]; a column with the id of the row (column `i` has that of row `i`) is never
        drawn, so that a second caption of an image is not taught as its mismatch.
      margin: leaves out columns with $S_{ij} > S_{ii} - m$, which are likely positives that nobody
        marked (GISTEmbed, absolute; its default is m = 0). `None` leaves none out.

    Returns:
      The columns [n] and bool [n], False for a row without a candidate, whose column is then 0:
      mask its loss. No gradient.

    Raises:
      TypeError: if `similarity` is not floating point, `where` not boolean, `ids` not integer.
      ValueError: if a shape does not fit or there are fewer columns than rows.

    Reference: Li et al., 2021, arXiv:2107.07651, section 3.2 (ALBEF's in-batch hard negatives);
    Solatorio, 2024, arXiv:2402.16829 (`margin`).

    Example:
      >>> indices, valid = sample_hard_negatives(jax.random.key(0), jnp.eye(2))
      >>> indices.tolist(), valid.tolist()
      ([1, 0], [True, True])
    """
    check_floating(similarity=similarity)
    check_rank(2, axes="[n, m]", similarity=similarity)
    n, m = similarity.shape
    if m < n:
        raise ValueError(f"similarity must have a column for each row, got {similarity.shape}")
    check_ids(ids, shape=(m,))
    candidates = broadcast_mask(where, shape=(n, m), name="where")
    if ids is None:
        ids = jnp.arange(m)
    candidates = candidates & (ids[:n, None] != ids[None, :])
    logits = jax.lax.stop_gradient(similarity.astype(accumulation_dtype(similarity)))
    if margin is not None:
        bound = jnp.diagonal(logits) - as_scalar(margin, logits, name="margin")
        candidates = candidates & (logits <= bound[:, None])
    logits = jnp.where(candidates, logits, -jnp.inf)
    if key is None:
        drawn = jnp.argmax(logits, axis=1)
    else:
        drawn = jax.random.categorical(key, logits, axis=1)
    valid = jnp.any(candidates, axis=1)
    return jnp.where(valid, drawn, 0), valid
