"""Optimal transport between two sets of vectors: costs, divergence, what a plan brings."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, ScalarLike

from datarax.functional.checks import accumulation_dtype, check_floating, check_rank
from datarax.functional.masking import safe_l2_normalize
from datarax.functional.similarity import pairwise_cosine_similarity, pairwise_squared_distance
from datarax.functional.transport.costs import PointCost, mean_cost
from datarax.functional.transport.marginals import marginals, positive_scalar, vector_mask
from datarax.functional.transport.point_plan import PointPlan, plan_product
from datarax.functional.transport.sinkhorn import sinkhorn
from datarax.functional.transport.sweeps import MEMORY_BUDGET

Metric = Literal["squared_euclidean", "cosine"]


def transport_cost(
    a: Num[Array, "n d"],
    b: Num[Array, "m e"],
    *,
    metric: Metric = "squared_euclidean",
    a_mask: Array | None = None,
    b_mask: Array | None = None,
) -> Float[Array, "n m"]:
    r"""The cost matrix $\lVert a_i - b_j \rVert^2$, or $1 - \cos(a_i, b_j)$.

    Args:
      a, b: two sets of vectors of one width.
      metric: `"squared_euclidean"` or `"cosine"`.
      a_mask, b_mask: bool [n] and [m], True = keep; masked vectors may hold NaN and count as zero.

    Returns:
      The matrix, at least float32, in [0, inf). The gradient at masked vectors is 0; their rows and
      columns hold numbers, so give the masks to the transport as well.

    Raises:
      TypeError: if the vectors are not floating point or a mask not boolean.
      ValueError: if shapes do not fit or the metric is unknown.

    Example:
      >>> transport_cost(jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]]))
      Array([[25.]], dtype=float32)
    """
    a, b = _kept(a, b, metric=metric, masks=(a_mask, b_mask))
    if metric == "cosine":
        return 1 - pairwise_cosine_similarity(a, b)
    return pairwise_squared_distance(a, b)


def point_cost(
    a: Num[Array, "n d"],
    b: Num[Array, "m e"],
    *,
    metric: Metric = "squared_euclidean",
    a_mask: Array | None = None,
    b_mask: Array | None = None,
) -> PointCost:
    r"""The costs of `transport_cost` without their matrix, for transports in `O(n d)` memory.

    Args:
      a, b, metric, a_mask, b_mask: as in `transport_cost`.

    Returns:
      What `sinkhorn`, `unbalanced_sinkhorn` and `partial_sinkhorn` take instead of a matrix, in at
      least float32. Give the masks to the transport as well.

    Raises:
      TypeError: as `transport_cost`.
      ValueError: as `transport_cost`.

    Example:
      >>> point_cost(jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]])).column_offset
      Array([25.], dtype=float32)
    """
    a, b = _kept(a, b, metric=metric, masks=(a_mask, b_mask))
    wide = accumulation_dtype(a, b)
    a, b = a.astype(wide), b.astype(wide)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a and b must have one width, got shapes {a.shape} and {b.shape}")
    if metric == "cosine":
        a, b = safe_l2_normalize(a), safe_l2_normalize(b)
        return PointCost(a, b, jnp.ones(len(a), wide), jnp.zeros(len(b), wide))
    return PointCost(2 * a, b, jnp.sum(a**2, axis=1), jnp.sum(b**2, axis=1))


def sinkhorn_divergence(
    a: Num[Array, "n d"],
    b: Num[Array, "m e"],
    *,
    metric: Metric = "squared_euclidean",
    a_mask: Array | None = None,
    b_mask: Array | None = None,
    epsilon: ScalarLike = 0.05,
    relative: bool = True,
    num_iterations: int = 1000,
    tolerance: float | int = 1e-4,
    memory_budget: int = MEMORY_BUDGET,
) -> Float[Array, ""]:
    r"""$S(a, b) = O(a, b) - \frac12 O(a, a) - \frac12 O(b, b)$ with the regularised cost `O`.

    Args:
      a, b: two sets of vectors of one width, weighted equally.
      metric, a_mask, b_mask: as in `transport_cost`.
      epsilon: strength of the regularisation of all three, positive.
      relative: `epsilon` is in units of the mean cost between `a` and `b`.
      num_iterations, tolerance, memory_budget: as in `sinkhorn`.

    Returns:
      A scalar, at least float32, at least 0 up to rounding; 0 for equal sets, and where one of them
      is empty. Its gradient is exact at convergence.

    Raises:
      TypeError: as `transport_cost`.
      ValueError: as `transport_cost` and `sinkhorn`.

    Reference: Feydy et al., 2019, arXiv:1810.08278; `ott.tools.sinkhorn_divergence`. (POT's
    `empirical_sinkhorn_divergence` takes costs without regularisation.)

    Example:
      >>> float(sinkhorn_divergence(jnp.eye(3), jnp.eye(3)))
      0.0
    """
    first = vector_mask(a_mask, len(a), name="a_mask")
    second = vector_mask(b_mask, len(b), name="b_mask")
    both = jnp.any(first) & jnp.any(second)
    first, second = first & both, second & both
    cost = point_cost(a, b, metric=metric, a_mask=a_mask, b_mask=b_mask)
    unit = (
        mean_cost(*marginals(cost, None, None, a_mask=first, b_mask=second)) if relative else None
    )
    epsilon = positive_scalar(epsilon, name="epsilon", like=cost, unit=unit)

    def between(cost: PointCost, a_mask: Array, b_mask: Array) -> Array:
        return sinkhorn(
            cost,
            a_mask=a_mask,
            b_mask=b_mask,
            epsilon=epsilon,
            relative=False,
            num_iterations=num_iterations,
            tolerance=tolerance,
            memory_budget=memory_budget,
        ).regularised_cost

    within = [
        between(point_cost(x, x, metric=metric, a_mask=mask, b_mask=mask), mask, mask)
        for x, mask in ((a, first), (b, second))
    ]
    return between(cost, first, second) - (within[0] + within[1]) / 2


def transport_features(
    plan: Num[Array, "n m"] | PointPlan,
    values: Num[Array, "m e"],
    *,
    mask: Array | None = None,
) -> Float[Array, "n e"]:
    r"""Barycentric projection, $\sum_j P_{ij} v_j / \sum_j P_{ij}$: what each row is brought.

    Args:
      plan: a plan, at least 0; one between points is made a tile of rows at a time.
      values: a vector for each column.
      mask: bool [m], the columns that there are; masked values may hold NaN.

    Returns:
      [n, e], at least float32; 0 with gradient 0 for a row that is brought nothing.

    Raises:
      TypeError: if an input is not floating point or the mask not boolean.
      ValueError: if shapes do not fit.

    Reference: Courty et al., 2017, arXiv:1507.00504; `ot.da` (barycentric mapping).

    Example:
      >>> transport_features(jnp.array([[0.5, 0.5], [0.0, 0.0]]), jnp.array([[1.0], [3.0]]))
      Array([[2.],
             [0.]], dtype=float32)
    """
    if not isinstance(plan, PointPlan):
        check_floating(plan=plan)
        check_rank(2, axes="[n, m]", plan=plan)
    check_floating(values=values)
    check_rank(2, axes="[m, e]", values=values)
    if plan.shape[1] != len(values):
        raise ValueError(f"plan {plan.shape} needs {plan.shape[1]} values, got {values.shape}")
    keep = vector_mask(mask, len(values), name="mask")
    if isinstance(plan, PointPlan):
        wide = jnp.promote_types(plan.dtype, accumulation_dtype(values))
        values = jnp.where(keep[:, None], values.astype(wide), 0)
        brought, total = plan_product(plan.masked(keep), values)
        total = total[:, None]
    else:
        wide = accumulation_dtype(plan, values)
        plan = jnp.where(keep[None, :], plan.astype(wide), 0)
        values = jnp.where(keep[:, None], values.astype(wide), 0)
        total = jnp.sum(plan, axis=1, keepdims=True)
        brought = jnp.matmul(plan, values, precision=jax.lax.Precision.HIGHEST)
    return brought / jnp.where(total > 0, total, 1)


def _kept(
    a: Array, b: Array, *, metric: str, masks: tuple[Array | None, Array | None]
) -> tuple[Array, Array]:
    """Both sets of vectors, checked, 0 where masked."""
    if metric not in get_args(Metric):
        raise ValueError(f"metric must be one of {list(get_args(Metric))}, got {metric!r}")
    check_floating(a=a, b=b)
    check_rank(2, axes="[n, d]", a=a, b=b)
    a = jnp.where(vector_mask(masks[0], len(a), name="a_mask")[:, None], a, 0)
    return a, jnp.where(vector_mask(masks[1], len(b), name="b_mask")[:, None], b, 0)
