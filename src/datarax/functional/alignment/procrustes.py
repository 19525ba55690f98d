"""The orthogonal map that brings one modality closest to another, in closed form."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.alignment.moments import centered_rows, row_mask, zeroed_rows
from datarax.functional.checks import (
    accumulation_dtype,
    check_floating,
    check_rank,
    check_same_shape,
)
from datarax.functional.masking import masked_mean
from datarax.functional.similarity import pairwise_dot_product


def orthogonal_map(
    a: Num[Array, "n d"],
    b: Num[Array, "m e"],
    *,
    reflection: bool = True,
    center: bool = False,
    where: Array | None = None,
) -> Float[Array, "d d"]:
    r"""$\arg\min_{R^\top R = I} \sum_i \lVert a_i R - b_i \rVert^2 = U V^\top$ for
    $a^\top b = U \Sigma V^\top$.

    Args:
      a, b: embeddings of one shape.
      reflection: allow determinant -1; without it the last singular vector is turned where needed
        (Kabsch).
      center: take the mean of each over the kept rows off first.
      where: bool [n], the rows that count; others may hold NaN.

    Returns:
      The matrix, at least float32, orthogonal. Where $a^\top b$ has a null space the map of it is
      any, the identity for zero inputs. The gradient is that of the polar factor, whose
      denominators are sums of singular values: finite where they coincide, 0 where they vanish.

    Raises:
      TypeError: if an input is not floating point or `where` not boolean.
      ValueError: if the shapes differ or `where` does not fit.

    Reference: Schönemann, 1966; `scipy.linalg.orthogonal_procrustes`.

    Example:
      >>> orthogonal_map(jnp.eye(2), jnp.array([[0.0, 1.0], [-1.0, 0.0]]))
      Array([[ 0.,  1.],
             [-1.,  0.]], dtype=float32)
    """
    a, b = _prepared(a, b, center, where)
    return _nearest_orthogonal(pairwise_dot_product(a.T, b.T), reflection)


def procrustes_residual(
    a: Num[Array, "n d"],
    b: Num[Array, "m e"],
    *,
    reflection: bool = True,
    center: bool = False,
    where: Array | None = None,
) -> Float[Array, " n"]:
    r"""What the best orthogonal map leaves of each row, $\ell_i = \lVert a_i R - b_i \rVert^2$.

    Args:
      a, b: embeddings of one shape.
      reflection, center: as `orthogonal_map`.
      where: bool [n], the rows that count; others may hold NaN.

    Returns:
      One loss per row, at least float32, in [0, inf), 0 in masked rows; 0 with gradient 0 where
      one modality is the other rotated. The gradient is finite at every spectrum.

    Raises:
      TypeError: if an input is not floating point or `where` not boolean.
      ValueError: if the shapes differ or `where` does not fit.

    Reference: Schönemann, 1966.

    Example:
      >>> procrustes_residual(jnp.eye(2), 3 * jnp.eye(2)[::-1])
      Array([4., 4.], dtype=float32)
    """
    a, b = _prepared(a, b, center, where)
    rotation = _nearest_orthogonal(pairwise_dot_product(a.T, b.T), reflection)
    return jnp.sum((pairwise_dot_product(a, rotation.T) - b) ** 2, axis=1)


def procrustes_transform(
    a: Num[Array, "n d"],
    b: Num[Array, "m e"],
    *,
    reflection: bool = True,
    center: bool = False,
    where: Array | None = None,
) -> Float[Array, "n d"]:
    r"""Every row of `a` under the map fitted on the kept rows, $(a_i - \mu_a) R + \mu_b$.

    Args:
      a, b: embeddings of one shape.
      reflection, center: as `orthogonal_map`; the means $\mu$ are 0 without `center`.
      where: bool [n], the rows that the map is fitted on: those with both modalities. Of the other
        rows `b` may hold NaN, and `a` is mapped too.

    Returns:
      The shape of `a`, at least float32; without any kept row `a` itself.

    Raises:
      TypeError: if an input is not floating point or `where` not boolean.
      ValueError: if the shapes differ or `where` does not fit.

    Reference: Schönemann, 1966.

    Example:
      >>> procrustes_transform(jnp.eye(1, 2), jnp.eye(1, 2, k=1)).tolist()
      [[0.0, 1.0]]
    """
    rotation = orthogonal_map(a, b, reflection=reflection, center=center, where=where)
    wide = rotation.dtype
    if not center:
        return pairwise_dot_product(a.astype(wide), rotation.T)
    keep = row_mask(where, rows=a.shape[0])[:, None]
    source, target = (
        masked_mean(zeroed_rows(x, where=where), where=keep, axis=0).astype(wide)[None, :]
        for x in (a, b)
    )
    return pairwise_dot_product(a.astype(wide) - source, rotation.T) + target


def _prepared(a: Array, b: Array, center: bool, where: Array | None) -> tuple[Array, Array]:
    check_floating(a=a, b=b)
    check_rank(2, axes="[n, d]", a=a, b=b)
    check_same_shape(a=a, b=b)
    wide = accumulation_dtype(a, b)
    a, b = a.astype(wide), b.astype(wide)
    if center:
        return centered_rows(a, where=where), centered_rows(b, where=where)
    return zeroed_rows(a, where=where), zeroed_rows(b, where=where)


def _factors(x: Array, reflection: bool) -> tuple[Array, Array, Array, Array]:
    """U, the singular values with their signs, V', and U V' with those signs."""
    left, values, right = jnp.linalg.svd(x, full_matrices=False)
    signs = jnp.ones_like(values)
    if not reflection:
        turned = jnp.linalg.det(pairwise_dot_product(left, right.T)) < 0
        signs = signs.at[-1].set(jnp.where(turned, -1, 1).astype(values.dtype))
    return left, values * signs, right, pairwise_dot_product(left * signs[None, :], right.T)


@jax.custom_jvp
def _polar(x: Array) -> Array:
    return _factors(x, True)[3]


@jax.custom_jvp
def _rotation(x: Array) -> Array:
    return _factors(x, False)[3]


def _nearest_orthogonal(x: Array, reflection: bool) -> Array:
    return _polar(x) if reflection else _rotation(x)


def _derivative(x: Array, step: Array, reflection: bool) -> tuple[Array, Array]:
    """From X = R P: R'dR is skew, and R'dX - dX'R = (R'dR) P + P (R'dR), diagonal in V's basis."""
    _, values, right, rotation = _factors(x, reflection)
    turned = pairwise_dot_product(rotation.T, step.T)
    skew = turned - turned.T
    in_basis = pairwise_dot_product(pairwise_dot_product(right, skew.T), right)
    sums = values[:, None] + values[None, :]
    tolerance = jnp.max(jnp.abs(values), initial=0) * len(x) * jnp.finfo(x.dtype).eps
    solvable = jnp.abs(sums) > tolerance
    solved = jnp.where(solvable, in_basis / jnp.where(solvable, sums, 1), 0)
    outer = pairwise_dot_product(pairwise_dot_product(right.T, solved.T), right.T)
    return rotation, pairwise_dot_product(rotation, outer.T)


@_polar.defjvp
def _polar_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _derivative(primals[0], tangents[0], True)


@_rotation.defjvp
def _rotation_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _derivative(primals[0], tangents[0], False)
