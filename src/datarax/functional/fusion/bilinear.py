r"""Products of projected modalities: the low-rank forms of the bilinear map $x^\top W y$.

The factors are stacked on the axis before the features: [..., m, d], presence [..., m]. An absent
factor is replaced by ones, the multiplicative identity; where nothing is there the result is 0.
"""

from collections.abc import Sequence
from functools import reduce

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.checks import accumulation_dtype, broadcast_mask, check_floating
from datarax.functional.masking import safe_l2_normalize


def signed_sqrt(x: Num[Array, "..."]) -> Float[Array, "..."]:
    r"""$\mathrm{sign}(x) \sqrt{|x|}$ with gradient 0 at 0, where the derivative is infinite.

    Returns:
      The shape and dtype of `x`. Subnormal entries count as 0.

    Raises:
      TypeError: if `x` is not floating point.

    Example:
      >>> signed_sqrt(jnp.array([4.0, -9.0, 0.0]))
      Array([ 2., -3.,  0.], dtype=float32)
    """
    check_floating(x=x)
    wide = x.astype(accumulation_dtype(x))
    zero = jnp.abs(wide) < jnp.finfo(wide.dtype).tiny
    magnitude = jnp.abs(jnp.where(zero, 1, wide))
    return jnp.where(zero, 0, jnp.sign(wide) * jnp.sqrt(magnitude)).astype(x.dtype)


def power_normalize(x: Num[Array, "..."]) -> Float[Array, "..."]:
    r"""$u / \lVert u \rVert_2$ with $u = \mathrm{sign}(x) \sqrt{|x|}$, over the last axis.

    Returns:
      Unit vectors in the shape and dtype of `x`; a zero vector stays 0, its gradient is 0.

    Raises:
      TypeError: if `x` is not floating point.

    Reference: Yu et al., 2017, arXiv:1708.01471, section 3.2.

    Example:
      >>> power_normalize(jnp.array([9.0, -16.0]))
      Array([ 0.6, -0.8], dtype=float32)
    """
    return safe_l2_normalize(signed_sqrt(x))


def hadamard_product(
    factors: Num[Array, "..."], *, presence: Array | None = None
) -> Float[Array, "..."]:
    r"""$y = \bigodot_m h_m$ over the modalities that are there (MLB, with $h_m = W_m x_m$).

    Args:
      factors: at least two modalities, stacked on the axis before the features.
      presence: bool, broadcastable to [..., m], True where the modality is there.

    Returns:
      The product in the dtype of `factors`, computed in at least float32; 0 where nothing is
      there. Absent slots reach neither value nor gradient.

    Raises:
      TypeError: if `factors` is not floating point or `presence` not boolean.
      ValueError: if fewer than two modalities are stacked or `presence` does not fit.

    Reference: Kim et al., 2017, arXiv:1610.04325, equation 5 (for two).

    Example:
      >>> hadamard_product(jnp.array([[1.0, 2.0], [3.0, 4.0]]))
      Array([3., 8.], dtype=float32)
    """
    return _product(factors, presence).astype(factors.dtype)


def mfb_product(
    factors: Num[Array, "..."], *, rank: int, presence: Array | None = None
) -> Float[Array, "..."]:
    r"""Multi-modal factorised bilinear pooling, $y_j = \sum_{f < r} \prod_m h_{m, jr + f}$.

    Args:
      factors: [..., m, k r], the `rank` terms of one output beside each other.
      rank: the number of terms r of each sum, which divides the width of `factors`.
      presence: bool, broadcastable to [..., m], True where the modality is there.

    Returns:
      [..., k], else as `hadamard_product`, which it is for `rank` 1.

    Raises:
      TypeError: if `factors` is not floating point or `presence` not boolean.
      ValueError: as `hadamard_product`, or if `rank` does not divide the width.

    Reference: Yu et al., 2017, arXiv:1708.01471, equation 4.

    Example:
      >>> mfb_product(jnp.array([[1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 1.0, 10.0]]), rank=2)
      Array([ 3., 43.], dtype=float32)
    """
    check_rank_divides(factors, rank)
    return _pool(_product(factors, presence), rank).astype(factors.dtype)


def mfh_product(
    factors: Num[Array, "..."],
    *,
    rank: int,
    normalize: bool = False,
    presence: Array | None = None,
) -> Float[Array, "..."]:
    r"""High-order factorised pooling (MFH): the pooled $z_i = z_{i-1} \odot \bigodot_m h_{im}$.

    $z_0 = 1$; the p results of `mfb_product`'s pooling follow each other.

    Args:
      factors: [..., p, m, k r], p stages with projections of their own.
      rank: as in `mfb_product`.
      normalize: `power_normalize` each stage's result.
      presence: bool, broadcastable to [..., m], True where the modality is there.

    Returns:
      [..., p k], else as `mfb_product`, which it is for one stage.

    Raises:
      TypeError: if `factors` is not floating point or `presence` not boolean.
      ValueError: as `mfb_product`, or if `factors` has fewer than 3 axes.

    Reference: Yu et al., 2018, arXiv:1708.03619, equations 8 to 10.

    Example:
      >>> stages = jnp.array([[[1.0, 2.0], [3.0, 4.0]], [[1.0, 1.0], [1.0, 2.0]]])
      >>> mfh_product(stages, rank=2)
      Array([11., 19.], dtype=float32)
    """
    if factors.ndim < 3:
        raise ValueError(f"factors must have shape [..., stages, m, k*rank], got {factors.shape}")
    check_rank_divides(factors, rank)
    total, results = None, []
    for stage in range(factors.shape[-3]):
        product = _product(factors[..., stage, :, :], presence)
        total = product if total is None else total * product
        pooled = _pool(total, rank)
        results.append(power_normalize(pooled) if normalize else pooled)
    return jnp.concatenate(results, axis=-1).astype(factors.dtype)


def mutan_product(
    factors: Num[Array, "..."], *, rank: int, presence: Array | None = None
) -> Float[Array, "..."]:
    r"""The rank-constrained Tucker core of MUTAN, $y_j = \sum_{i < r} \prod_m h_{m, ik + j}$.

    Args:
      factors: [..., m, r k], the outputs of one rank beside each other.
      rank: the number of ranks r, which divides the width of `factors`.
      presence: bool, broadcastable to [..., m], True where the modality is there.

    Returns:
      [..., k], else as `hadamard_product`, which it is for `rank` 1.

    Raises:
      TypeError: if `factors` is not floating point or `presence` not boolean.
      ValueError: as `hadamard_product`, or if `rank` does not divide the width.

    Reference: Ben-younes et al., 2017, arXiv:1705.06676, equation 9.

    Example:
      >>> mutan_product(jnp.array([[1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 1.0, 10.0]]), rank=2)
      Array([ 4., 42.], dtype=float32)
    """
    check_rank_divides(factors, rank)
    product = _product(factors, presence)
    terms = product.reshape(*product.shape[:-1], rank, -1)
    return jnp.sum(terms, axis=-2).astype(factors.dtype)


def block_product(
    chunks: Sequence[Num[Array, "..."]],
    *,
    rank: int,
    normalize: bool = False,
    presence: Array | None = None,
) -> Float[Array, "..."]:
    r"""Block-superdiagonal core of BLOCK: `mutan_product` of each chunk, one after the other.

    Args:
      chunks: for each chunk the factors [..., m, r k_c].
      rank: as in `mutan_product`, of every chunk.
      normalize: `power_normalize` each chunk's result.
      presence: bool, broadcastable to [..., m], True where the modality is there.

    Returns:
      [..., sum of k_c], else as `mutan_product`, which it is for one chunk.

    Raises:
      TypeError: if a chunk is not floating point or `presence` not boolean.
      ValueError: if there is no chunk, or one does not fit.

    Reference: Ben-younes et al., 2019, arXiv:1902.00038, equation 9.

    Example:
      >>> block_product([jnp.ones((2, 4)), jnp.ones((2, 2))], rank=2)
      Array([2., 2., 2.], dtype=float32)
    """
    if len(chunks) == 0:
        raise ValueError("chunks must hold at least one array, got none")
    results = [mutan_product(chunk, rank=rank, presence=presence) for chunk in chunks]
    return jnp.concatenate([power_normalize(y) if normalize else y for y in results], axis=-1)


def tucker_product(
    factors: Num[Array, "..."],
    core: Num[Array, "..."],
    *,
    bias: Num[Array, "..."] | None = None,
    presence: Array | None = None,
) -> Float[Array, "..."]:
    r"""The bilinear map $y_k = \sum_{ij} T_{ijk} h_{1i} h_{2j} + c_k$.

    Args:
      factors: the two projected modalities, stacked on the axis before the features.
      core: the tensor T.
      bias: the vector c.
      presence: bool, broadcastable to [..., 2], True where the modality is there.

    Returns:
      [..., k] in the dtype of `factors`, computed in at least float32; 0 where nothing is there.
      Absent slots reach neither value nor gradient.

    Raises:
      TypeError: if an array is not floating point or `presence` not boolean.
      ValueError: if not exactly two modalities are stacked, or a shape does not fit.

    Reference: Tucker's decomposition as in Ben-younes et al., 2017, arXiv:1705.06676, equation 5.

    Example:
      >>> tucker_product(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.ones((2, 2, 1)))
      Array([21.], dtype=float32)
    """
    check_floating(factors=factors, core=core)
    if factors.ndim < 2 or factors.shape[-2] != 2:
        raise ValueError(f"factors must stack exactly 2 modalities, got shape {factors.shape}")
    width = factors.shape[-1]
    if core.ndim != 3 or core.shape[:2] != (width, width):
        raise ValueError(f"core must have shape ({width}, {width}, k), got {core.shape}")
    if bias is not None and bias.shape != core.shape[2:]:
        raise ValueError(f"bias must have shape {core.shape[2:]}, got {bias.shape}")
    keep = broadcast_mask(presence, shape=factors.shape[:-1], name="presence")[..., None]
    wide = accumulation_dtype(factors, core)
    x, y = (jnp.where(keep[..., m, :], factors[..., m, :].astype(wide), 1) for m in (0, 1))
    result = jnp.einsum("...i,...j,ijk->...k", x, y, core.astype(wide))
    if bias is not None:
        result = result + jnp.broadcast_to(bias.astype(wide), result.shape)
    return jnp.where(jnp.any(keep, axis=-2), result, 0).astype(factors.dtype)


def check_rank_divides(factors: Array, rank: int) -> None:
    """Reject a rank that is not positive or does not divide the last axis.

    Raises:
      ValueError: with the rank and the shape.

    Example:
      >>> check_rank_divides(jnp.ones((2, 6)), 3)
    """
    if rank < 1 or factors.ndim == 0 or factors.shape[-1] % rank:
        raise ValueError(
            f"rank must be positive and divide the width of factors, got {rank} for shape "
            f"{factors.shape}"
        )


def _product(factors: Array, presence: Array | None) -> Array:
    """The product over the modalities that are there, in the accumulation dtype."""
    check_floating(factors=factors)
    if factors.ndim < 2 or factors.shape[-2] < 2:
        raise ValueError(
            f"factors must stack at least 2 modalities as [..., m, d], got shape {factors.shape}"
        )
    keep = broadcast_mask(presence, shape=factors.shape[:-1], name="presence")[..., None]
    kept = jnp.where(keep, factors.astype(accumulation_dtype(factors)), 1)
    product = reduce(jnp.multiply, (kept[..., m, :] for m in range(factors.shape[-2])))
    return jnp.where(jnp.any(keep, axis=-2), product, 0)


def _pool(product: Array, rank: int) -> Array:
    return jnp.sum(product.reshape(*product.shape[:-1], -1, rank), axis=-1)
