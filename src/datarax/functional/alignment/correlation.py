"""Canonical correlation of two or more modalities as a loss, finite at every spectrum."""

from collections.abc import Sequence
from functools import partial
from itertools import combinations
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from datarax.functional.alignment.moments import centered_rows, check_same_rows, kept_rows
from datarax.functional.checks import accumulation_dtype, check_floating, check_rank
from datarax.functional.similarity import pairwise_dot_product

CCAForm = Literal["pairs", "gcca", "ey"]
CCAObjective = Literal["sum", "sum_squares"]


def cca_loss(
    views: Sequence[Array],
    *,
    form: CCAForm | None = None,
    objective: CCAObjective = "sum_squares",
    components: int | None = None,
    ridge: float | int = 1e-4,
    where: Array | None = None,
) -> Float[Array, ""]:
    r"""Minus the canonical correlation of M >= 2 views `[n, d_m]`.

    With $S_{ij}$ the covariances (ddof 1), $L_i L_i^\top = S_{ii} + r I$ and
    $T_{ij} = L_i^{-1} S_{ij} L_j^{-\top}$, whose singular values are the canonical correlations:

    * `"pairs"`: $-\sum_{i<j} \lVert T_{ij} \rVert_F^2$, or for the objective `"sum"` the nuclear
      norms $-\sum_{i<j} \lVert T_{ij} \rVert_*$.
    * `"gcca"`: minus the sum of the k largest eigenvalues of $\sum_i P_i$, where $P_i$ projects
      the rows on view `i`; in $[-kM, 0]$.
    * `"ey"`: $-2\,\mathrm{tr}\,C + \mathrm{tr}\,V^2$ for $C = \frac1M \sum_{i,j} S_{ij}$,
      $V = \frac1M \sum_i S_{ii}$; no inverse, at its minimum $-\sum_k \lambda_k^2$, which for two
      views is $-\sum_k (1 + \rho_k)^2$.

    Args:
      views: matrices with one row an example; for `"ey"` of equal width.
      form: `None` is `"pairs"`, but `"ey"` for views of one width that is no less than the number
        of rows, where every correlation of the batch is 1 whatever the embeddings.
      objective: read by `"pairs"`: the sum of squares (cca_zoo) or of correlations (Andrew), which
        `None` as a form takes as `"pairs"`.
      components: read by `"gcca"`: k; `None` is the smallest width.
      ridge: r, read by `"pairs"` and `"gcca"`; at least what rounding needs (10 eps of the trace).
      where: bool [n], the rows that count; others may hold NaN.

    Returns:
      A scalar, at least float32, 0 for fewer than two rows. The gradient is finite for identical
      views, constant columns and equal or vanishing correlations, since it has no eigenvectors in
      a denominator: that of a nuclear norm is $U V^\top$ over the positive singular values.

    Raises:
      TypeError: if a view is not floating point or `where` not boolean.
      ValueError: for fewer than two views, views of different rows, unequal widths with `"ey"`, an
        unknown choice, an option that the form does not read, or a negative ridge.

    Reference: Andrew et al., 2013; Benton et al., 2019, arXiv:1702.02519 (GCCA); Chapman et al.,
    2024, arXiv:2310.01012 (EY). Values are those of cca_zoo 4.0.1.

    Example:
      >>> x = jnp.array([[1.0], [2.0], [4.0]])
      >>> round(float(cca_loss([x, 3 - x], ridge=0.0)), 4)
      -1.0
    """
    chosen = _checked_form(views, form, objective)
    _check_options(
        form=chosen,
        objective=objective,
        components=components,
        ridge=ridge,
        width=min(x.shape[1] for x in views),
    )
    wide = accumulation_dtype(*views)
    rows = views[0].shape[0]
    centered = [centered_rows(x.astype(wide), where=where) for x in views]
    divisor = kept_rows(where, rows=rows, less=1).astype(wide)
    if chosen == "ey":
        return _eckart_young(centered, divisor)
    whitened = [_whitened(x, divisor, ridge) for x in centered]
    if chosen == "gcca":
        stacked = jnp.concatenate(whitened)
        gram = pairwise_dot_product(stacked, stacked)
        return -_top_eigenvalues(gram, components or min(x.shape[1] for x in views))
    loss = jnp.zeros((), wide)
    for a, b in combinations(whitened, 2):
        correlation = pairwise_dot_product(a, b)
        loss = loss - (
            jnp.sum(correlation**2) if objective == "sum_squares" else _nuclear_norm(correlation)
        )
    return loss


def _eckart_young(centered: Sequence[Array], divisor: Array) -> Array:
    total = sum(centered[1:], centered[0])
    within = [pairwise_dot_product(x.T, x.T) for x in centered]
    variance = sum(within[1:], within[0]) / (len(centered) * divisor)
    trace = jnp.sum(total**2) / (len(centered) * divisor)  # of C, which is total' total
    return jnp.sum(variance**2) - 2 * trace


def _whitened(x: Array, divisor: Array, ridge: float | int) -> Array:
    r"""$L^{-1} x^T / \sqrt{n - 1}$, `[d, n]`: rows of unit variance, uncorrelated."""
    x = x / jnp.sqrt(divisor)
    covariance = pairwise_dot_product(x.T, x.T)
    # Without the floor rounding makes a rank-deficient covariance indefinite, its factor NaN.
    kind = jnp.finfo(x.dtype)
    floor = 10 * kind.eps * jnp.trace(covariance) + jnp.sqrt(kind.tiny).astype(x.dtype)
    added = jnp.maximum(ridge, floor) * jnp.eye(len(covariance), dtype=x.dtype)
    factor = jnp.linalg.cholesky(covariance + added)
    return jax.scipy.linalg.solve_triangular(factor, x.T, lower=True)


@jax.custom_jvp
def _nuclear_norm(x: Array) -> Array:
    return jnp.sum(jnp.linalg.svd(x, compute_uv=False))


@_nuclear_norm.defjvp
def _nuclear_norm_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (step,) = primals, tangents
    left, values, right = jnp.linalg.svd(x, full_matrices=False)
    tolerance = jnp.max(values, initial=0) * max(x.shape) * jnp.finfo(x.dtype).eps
    left = jnp.where((values > tolerance)[None, :], left, 0)
    return jnp.sum(values), jnp.sum(pairwise_dot_product(left, right.T) * step)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _top_eigenvalues(x: Array, count: int) -> Array:
    return jnp.sum(jnp.linalg.eigvalsh(x)[-count:])


@_top_eigenvalues.defjvp
def _top_eigenvalues_jvp(
    count: int, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    (x,), (step,) = primals, tangents
    values, vectors = jnp.linalg.eigh(x)
    top = vectors[:, -count:]
    return jnp.sum(values[-count:]), jnp.sum(pairwise_dot_product(top, top) * step)


def _checked_form(views: Sequence[Array], form: str | None, objective: str) -> str:
    if len(views) < 2:
        raise ValueError(f"views must hold two or more matrices, got {len(views)}")
    named = {f"views[{i}]": x for i, x in enumerate(views)}
    check_floating(**named)
    check_rank(2, axes="[n, d]", **named)
    check_same_rows(**named)
    widths = [x.shape[1] for x in views]
    if form is None:
        saturated = views[0].shape[0] <= widths[0] and len(set(widths)) == 1
        form = "ey" if saturated and objective == "sum_squares" else "pairs"
    if form not in get_args(CCAForm):
        raise ValueError(f"form must be one of {list(get_args(CCAForm))} or None, got {form!r}")
    if form == "ey" and len(set(widths)) > 1:
        raise ValueError(
            f"form 'ey' needs views of one width, got {widths}: project them, or take 'pairs'"
        )
    return form


def _check_options(
    *, form: str, objective: str, components: int | None, ridge: float | int, width: int
) -> None:
    if objective not in get_args(CCAObjective):
        raise ValueError(
            f"objective must be one of {list(get_args(CCAObjective))}, got {objective!r}"
        )
    if objective == "sum" and form != "pairs":
        raise ValueError(f"objective 'sum' is read by form 'pairs' only, got {form!r}")
    if components is not None and form != "gcca":
        raise ValueError(f"components={components} is read by form 'gcca' only, got {form!r}")
    if components is not None and not 1 <= components <= width:
        raise ValueError(f"components must be in [1, {width}], got {components}")
    if not ridge >= 0:
        raise ValueError(f"ridge must be at least 0, got {ridge}")
