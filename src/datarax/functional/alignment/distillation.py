"""Distillation of relations: a student's distances, angles and similarities after a teacher's."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.alignment.distances import huber_penalty
from datarax.functional.alignment.moments import (
    centered_rows,
    check_same_rows,
    kept_rows,
    row_mask,
    zeroed_rows,
)
from datarax.functional.checks import (
    accumulation_dtype,
    check_floating,
    check_rank,
    check_same_shape,
)
from datarax.functional.masking import (
    masked_logsumexp,
    masked_mean,
    masked_softmax,
    safe_l2_normalize,
)
from datarax.functional.similarity import pairwise_dot_product, pairwise_squared_distance


def relational_distance(
    student: Num[Array, "n d"],
    teacher: Num[Array, "m e"],
    *,
    delta: float | int = 1.0,
    where: Array | None = None,
) -> Float[Array, " n"]:
    r"""Distance-wise relational distillation,

    $\ell_i = \frac1n \sum_j h_\delta(|s_i - s_j| / \mu_s - |t_i - t_j| / \mu_t)$ with the Huber
    penalty and the mean distances $\mu$ of different rows.

    Args:
      student, teacher: embeddings of the same rows; widths may differ. Both get gradients: wrap
        the teacher in `jax.lax.stop_gradient` to distil.
      delta: where the penalty turns linear, positive; 1 is the paper's.
      where: bool [n], the rows that count; others may hold NaN.

    Returns:
      One loss per row, at least float32, in [0, inf), 0 in masked rows and for one row; the mean
      over the kept rows is the authors'. Equal rows have distance 0 with gradient 0.

    Raises:
      TypeError: if an input is not floating point or `where` not boolean.
      ValueError: if the rows differ in number, `where` does not fit or `delta` is not positive.

    Reference: Park et al., 2019, arXiv:1904.05068, equations 5 to 7.

    Example:
      >>> relational_distance(jnp.eye(3), 5 * jnp.eye(3)).round(6).tolist()
      [0.0, 0.0, 0.0]
    """
    student, teacher = _related(student, teacher, where)
    keep = row_mask(where, rows=student.shape[0])
    difference = _relative_distances(student, keep) - _relative_distances(teacher, keep)
    penalty = huber_penalty(difference, delta=delta)
    return jnp.sum(penalty, axis=1) / kept_rows(keep, rows=len(keep)).astype(penalty.dtype)


def relational_angle(
    student: Num[Array, "n d"],
    teacher: Num[Array, "m e"],
    *,
    delta: float | int = 1.0,
    where: Array | None = None,
) -> Float[Array, " n"]:
    r"""Angle-wise relational distillation,

    $\ell_j = \frac{1}{n^2} \sum_{i,k} h_\delta(\cos\angle s_i s_j s_k - \cos\angle t_i t_j t_k)$
    with the Huber penalty; row `j` is the vertex.

    Args:
      student, teacher: embeddings of the same rows; widths may differ. Both get gradients.
      delta: where the penalty turns linear, positive; 1 is the paper's.
      where: bool [n], the rows that count; others may hold NaN.

    Returns:
      One loss per row, at least float32, in [0, inf), 0 in masked rows and for one row; the mean
      over the kept rows is the authors'. An angle with a side of length 0 has cosine 0.

    The time is that of $n^3 d$, the memory of $n^2 + nd$: one vertex at a time, computed again for
    the gradient.

    Raises:
      TypeError: if an input is not floating point or `where` not boolean.
      ValueError: if the rows differ in number, `where` does not fit or `delta` is not positive.

    Reference: Park et al., 2019, arXiv:1904.05068, equations 8 to 10.

    Example:
      >>> relational_angle(jnp.eye(3), 5 * jnp.eye(3)).round(6).tolist()
      [0.0, 0.0, 0.0]
    """
    student, teacher = _related(student, teacher, where)
    keep = row_mask(where, rows=student.shape[0])
    pairs = keep[:, None] & keep[None, :]

    @jax.checkpoint
    def vertex(row: Array) -> Array:
        cosines = [_cosines_at(x, row) for x in (student, teacher)]
        penalty = huber_penalty(cosines[0] - cosines[1], delta=delta)
        return jnp.sum(jnp.where(pairs, penalty, 0))

    totals = jax.lax.map(vertex, jnp.arange(len(keep)))
    count = kept_rows(keep, rows=len(keep)).astype(totals.dtype)
    return jnp.where(keep, totals, 0) / count**2


def similarity_distillation(
    a: Num[Array, "n d"],
    b: Num[Array, "m e"],
    *,
    teacher_a: Num[Array, "k f"],
    teacher_b: Num[Array, "l g"],
    logit_scale: Array | float | int,
    teacher_logit_scale: Array | float | int | None = None,
    subtract_entropy: bool = False,
    where: Array | None = None,
) -> Float[Array, " n"]:
    r"""Cross-entropy of the student's similarities under the teacher's,

    $\ell_i = -\frac12 \sum_j \big(p_{ij} \log q_{ij} + p'_{ij} \log q'_{ij}\big)$ with
    $q = \mathrm{softmax}_j(s\, a_i \cdot b_j)$, $q' = \mathrm{softmax}_j(s\, b_i \cdot a_j)$ and
    `p`, `p'` likewise of the teacher.

    Args:
      a, b: the student's embeddings; unit vectors in open_clip. Not normalised here.
      teacher_a, teacher_b: the teacher's for the same rows, of another width perhaps; both get
        gradients: wrap them in `jax.lax.stop_gradient` to distil.
      logit_scale, teacher_logit_scale: inverse temperatures; `None` is the student's for both.
      subtract_entropy: give the Kullback-Leibler divergence, 0 for an equal teacher; open_clip's
        cross-entropy has the teacher's entropy in it, a constant for the student.
      where: bool [n], the rows that count; others may hold NaN.

    Returns:
      One loss per row, at least float32, in [0, inf), 0 in masked rows and for one row; the mean
      over the kept rows is the distillation term of open_clip's `DistillClipLoss`.

    Raises:
      TypeError: if an input is not floating point or `where` not boolean.
      ValueError: if `a` and `b`, or the teacher's two, differ in shape, or `where` does not fit.

    Reference: Hinton et al., 2015, arXiv:1503.02531; open_clip 3.3.0, `loss.py`.

    Example:
      >>> x = jnp.eye(2)
      >>> same = {"teacher_a": x, "teacher_b": x, "logit_scale": 5.0}
      >>> similarity_distillation(x, x, **same, subtract_entropy=True)
      Array([0., 0.], dtype=float32)
    """
    named = {"a": a, "b": b, "teacher_a": teacher_a, "teacher_b": teacher_b}
    check_floating(**named)
    check_rank(2, axes="[n, d]", **named)
    check_same_shape(a=a, b=b)
    check_same_shape(teacher_a=teacher_a, teacher_b=teacher_b)
    check_same_rows(**named)
    keep = row_mask(where, rows=a.shape[0])
    teacher_scale = logit_scale if teacher_logit_scale is None else teacher_logit_scale
    student_logits = _scaled(_similarities(a, b, where), logit_scale)
    teacher_logits = _scaled(_similarities(teacher_a, teacher_b, where), teacher_scale)
    both = [
        _cross_entropy(teacher, student, keep, subtract_entropy)
        for teacher, student in (
            (teacher_logits, student_logits),
            (teacher_logits.T, student_logits.T),
        )
    ]
    return jnp.where(keep, (both[0] + both[1]) / 2, 0)


def _cross_entropy(teacher: Array, student: Array, keep: Array, subtract_entropy: bool) -> Array:
    columns = jnp.broadcast_to(keep[None, :], teacher.shape)
    wide = accumulation_dtype(teacher, student)
    target = masked_softmax(teacher, where=columns, axis=1).astype(wide)
    log_student = student - masked_logsumexp(student, where=columns, axis=1)[:, None]
    gap = -log_student.astype(wide)
    if subtract_entropy:
        log_teacher = teacher - masked_logsumexp(teacher, where=columns, axis=1)[:, None]
        gap = gap + log_teacher.astype(wide)
    return jnp.sum(jnp.where(columns, target * gap, 0), axis=1)


def _scaled(logits: Array, scale: Array | float | int) -> Array:
    return logits * jnp.asarray(scale).astype(logits.dtype)


def _similarities(a: Array, b: Array, where: Array | None) -> Array:
    return pairwise_dot_product(zeroed_rows(a, where=where), zeroed_rows(b, where=where))


def _related(student: Array, teacher: Array, where: Array | None) -> tuple[Array, Array]:
    """Both inputs checked, in the dtype of accumulation, with zeros in masked rows."""
    named = {"student": student, "teacher": teacher}
    check_floating(**named)
    check_rank(2, axes="[n, d]", **named)
    check_same_rows(**named)
    wide = accumulation_dtype(student, teacher)
    student, teacher = student.astype(wide), teacher.astype(wide)
    return zeroed_rows(student, where=where), zeroed_rows(teacher, where=where)


def _relative_distances(x: Array, keep: Array) -> Array:
    """Distances of kept rows over their mean, 0 elsewhere and on the diagonal."""
    centered = centered_rows(x, where=keep)
    squares = pairwise_squared_distance(centered, centered)
    apart = keep[:, None] & keep[None, :] & ~jnp.eye(len(keep), dtype=bool)
    # What rounding leaves of equal rows; the root of it would have an endless slope.
    nought = 4 * jnp.finfo(squares.dtype).eps * jnp.max(jnp.sum(centered**2, axis=1), initial=0)
    positive = apart & (squares > jax.lax.stop_gradient(nought))
    distances = jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)
    mean = masked_mean(distances.ravel(), where=apart.ravel())
    return distances / jnp.where(mean == 0, 1, mean)


def _cosines_at(x: Array, row: Array) -> Array:
    """Cosines of the angles at one row between the directions to all others."""
    directions = safe_l2_normalize(x - x[row][None, :])
    return pairwise_dot_product(directions, directions)
