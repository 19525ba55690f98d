"""Zero-shot classification: the nearest class, each of them the mean of its prompts."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from datarax.functional.checks import broadcast_mask, check_floating, check_mask, check_rank
from datarax.functional.masking import masked_mean, safe_l2_normalize
from datarax.functional.retrieval.rank_statistics import recall_at_k
from datarax.functional.retrieval.ranks import Ties, contests, hit_probability, rank_of


def class_embeddings(
    prompts: Num[Array, "c p d"], *, mask: Array | None = None
) -> Float[Array, "c d"]:
    r"""One unit vector a class, $w_c = \bar u_c / \lVert \bar u_c \rVert$, with $\bar u_c$ the mean
    of the class's prompts, each made a unit vector.

    Args:
      prompts: the embeddings of `p` prompts for each of `c` classes.
      mask: bool [c, p], the prompts that there are; others may hold NaN.

    Returns:
      [c, d], in the dtype of the prompts; 0 with gradient 0 for a class without prompts, or whose
      prompts cancel.

    Raises:
      TypeError: if the prompts are not floating point or the mask not boolean.
      ValueError: if shapes do not fit.

    Reference: Radford et al., 2021, arXiv:2103.00020, section 3.1.4; open_clip
    `build_zero_shot_classifier`.

    Example:
      >>> class_embeddings(jnp.array([[[2.0, 0.0], [0.0, 3.0]]])).round(4)
      Array([[0.7071, 0.7071]], dtype=float32)
    """
    check_floating(prompts=prompts)
    check_rank(3, axes="[c, p, d]", prompts=prompts)
    if mask is not None:
        check_mask(mask, shape=prompts.shape[:2], name="mask")
    keep = broadcast_mask(mask, shape=prompts.shape[:2], name="mask")[:, :, None]
    units = safe_l2_normalize(jnp.where(keep, prompts, 0))
    return safe_l2_normalize(masked_mean(units, where=keep, axis=1))


def zero_shot_accuracy(
    embeddings: Num[Array, "n d"],
    classes: Num[Array, "c e"],
    labels: Int[Array, " n"],
    *,
    ks: Sequence[int] = (1, 5),
    where: Array | None = None,
    class_presence: Array | None = None,
    ties: Ties = "expected",
    block_size: int = 256,
) -> dict[str, Float[Array, ""]]:
    """The share of examples whose class is among the `k` most similar by dot product.

    Args:
      embeddings: one row an example; its length does not matter.
      classes: from `class_embeddings`.
      labels: integers [n], the index of each example's class. An example whose label is no class,
        or an absent one, does not count.
      ks: how many classes are looked at, each at least 1.
      where: bool [n], the examples that count; others may hold NaN.
      class_presence: bool [c], the classes that there are.
      ties: classes with one score are taken in random order, and the exact expectation returned;
        or as in `functional.rank_of`.
      block_size: the number of examples whose scores are held at a time.

    Returns:
      `accuracy_at_k` for each of `ks`, scalars in [0, 1]; 0 if no example counts.

    Raises:
      TypeError: if embeddings are not floating point, labels not integers or a mask not boolean.
      ValueError: if shapes do not fit, one of `ks` is not positive, or `ties` is unknown.

    Example:
      >>> found = zero_shot_accuracy(jnp.eye(3), jnp.eye(3), jnp.array([0, 1, 0]), ks=[1])
      >>> round(float(found["accuracy_at_1"]), 4)
      0.6667
    """
    found = contests(
        embeddings,
        classes,
        positives=labels,
        query_presence=where,
        target_presence=class_presence,
        block_size=block_size,
    )
    ranks, counted = rank_of(found, ties=ties), found.counted
    if ties == "expected":
        shares = [masked_mean(hit_probability(found, k=k), where=counted) for k in ks]
    else:
        shares = [recall_at_k(ranks, k=k, where=counted) for k in ks]
    return dict(zip((f"accuracy_at_{k}" for k in ks), shares, strict=True))


def logit_statistics(
    logits: Num[Array, "n m"],
    *,
    positives: Array | None = None,
    where: Array | None = None,
) -> dict[str, Float[Array, ""]]:
    """Least, mean and largest logit of the pairs that belong together, and of those that do not.

    Args:
      logits: the scaled similarities of queries and targets.
      positives: bool [n, m], the pairs that belong together; `None` takes the diagonal.
      where: bool, broadcastable to [n, m], the pairs that there are; others may hold NaN.

    Returns:
      `positive_min`, `positive_mean`, `positive_max`, `negative_min`, `negative_mean`,
      `negative_max`: scalars, at least float32; 0 where there is no such pair.

    Raises:
      TypeError: if logits are not floating point or a mask not boolean.
      ValueError: if shapes do not fit.

    Reference: big_vision `_deprecated_contrastive.py`, which logs them in training.

    Example:
      >>> float(logit_statistics(jnp.array([[9.0, 1.0], [2.0, 8.0]]))["negative_max"])
      2.0
    """
    check_floating(logits=logits)
    check_rank(2, axes="[n, m]", logits=logits)
    keep = broadcast_mask(where, shape=logits.shape, name="where")
    if positives is None:
        positives = jnp.eye(logits.shape[0], logits.shape[1], dtype=bool)
    check_mask(positives, shape=logits.shape, name="positives")
    wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    found = {}
    for name, chosen in (("positive", positives & keep), ("negative", ~positives & keep)):
        some = jnp.any(chosen)
        least = jnp.min(wide, where=chosen, initial=jnp.inf)
        most = jnp.max(wide, where=chosen, initial=-jnp.inf)
        found[f"{name}_min"] = jnp.where(some, least, 0)
        found[f"{name}_mean"] = masked_mean(wide.reshape(-1), where=chosen.reshape(-1))
        found[f"{name}_max"] = jnp.where(some, most, 0)
    return found
