"""What the alignment losses refuse, and the words in which they do."""

import inspect

import jax.numpy as jnp
import pytest

from datarax.functional import (
    barlow_twins,
    cca_loss,
    centroid_uniformity,
    cka,
    cross_modal_consistency,
    hsic,
    huber_alignment,
    in_modal_consistency,
    kernel_matrix,
    orthogonal_map,
    procrustes_residual,
    relational_angle,
    relational_distance,
    similarity_distillation,
    similarity_matching,
    vicreg,
)

X, K = jnp.ones((3, 2)), jnp.ones((3, 2), jnp.int32)
PAIRS = [
    vicreg,
    barlow_twins,
    cross_modal_consistency,
    procrustes_residual,
    orthogonal_map,
    centroid_uniformity,
]
SETS = [in_modal_consistency, similarity_matching, hsic, cka]
TWO = [X, X]
BAD = [
    *[(f, (X, X[:2]), {}, ValueError, "equal shapes, got a") for f in (*PAIRS, huber_alignment)],
    *[(f, (X, X[:2]), {}, ValueError, r"one number of rows, got a \(3, 2\)") for f in SETS],
    *[(f, (K, X), {}, TypeError, "a must be floating point") for f in (*PAIRS, *SETS)],
    *[(f, (X[0], X[0]), {}, ValueError, r"shape \[n, d\]") for f in (*PAIRS, *SETS)],
    *[
        (f, (X, X), {"where": jnp.ones(2, bool)}, ValueError, r"where must have shape \(3,\)")
        for f in (*PAIRS, *SETS, relational_distance, relational_angle)
    ],
    *[
        (f, (X, X), {"where": jnp.ones(3)}, TypeError, "where must be boolean")
        for f in (*PAIRS, *SETS)
    ],
    (relational_angle, (X, X[:2]), {}, ValueError, "rows, got student"),
    (relational_distance, (X, K), {}, TypeError, "teacher must be floating"),
    (relational_distance, (X, X), {"delta": 0.0}, ValueError, "delta must be positive, got 0.0"),
    (huber_alignment, (X, X), {"delta": -1.0}, ValueError, "delta must be positive, got -1.0"),
    (vicreg, (X, X), {"eps": 0.0}, ValueError, "eps must be positive, got 0.0"),
    (barlow_twins, (X, X), {"eps": 0.0}, ValueError, "eps must be positive, got 0.0"),
    (barlow_twins, (X, X), {"ddof": 2}, ValueError, "ddof must be 0 or 1, got 2"),
    (barlow_twins, (X, X), {"statistics": "all"}, ValueError, r"one of \['each', 'pooled'\]"),
    (
        kernel_matrix,
        (X,),
        {"kernel": "poly"},
        ValueError,
        r"one of \['linear', 'rbf'\], got 'poly'",
    ),
    (kernel_matrix, (X,), {"bandwidth": 1.0}, ValueError, "bandwidth must be .* belongs to 'rbf'"),
    (
        kernel_matrix,
        (X,),
        {"kernel": "rbf", "bandwidth": 0.0},
        ValueError,
        "bandwidth must be positive",
    ),
    (cca_loss, ([X],), {}, ValueError, "two or more matrices, got 1"),
    (cca_loss, ([X, K],), {}, TypeError, r"views\[1\] must be floating point"),
    (cca_loss, ([X, X[0]],), {}, ValueError, r"views\[1\] must have shape"),
    (cca_loss, ([X, X[:2]],), {}, ValueError, r"one number of rows, got views\[0\]"),
    (cca_loss, (TWO,), {"form": "kcca"}, ValueError, r"form must be one of \['pairs', 'gcca'"),
    (cca_loss, ([X, X[:, :1]],), {"form": "ey"}, ValueError, r"views of one width, got \[2, 1\]"),
    (cca_loss, (TWO,), {"objective": "max"}, ValueError, r"objective must be one of \['sum', "),
    (
        cca_loss,
        (TWO,),
        {"objective": "sum", "form": "ey"},
        ValueError,
        "'sum' is read by form 'pairs' only, got 'ey'",
    ),
    (cca_loss, (TWO,), {"components": 1}, ValueError, "components=1 is read by form 'gcca' only"),
    (
        cca_loss,
        (TWO,),
        {"components": 3, "form": "gcca"},
        ValueError,
        r"components must be in \[1, 2\], got 3",
    ),
    (cca_loss, (TWO,), {"ridge": -1.0}, ValueError, "ridge must be at least 0, got -1.0"),
    (
        similarity_distillation,
        (X, X),
        {"teacher_a": X, "teacher_b": X[:2], "logit_scale": 1.0},
        ValueError,
        "equal shapes, got teacher_a",
    ),
    (
        similarity_distillation,
        (X, X),
        {"teacher_a": X[:2], "teacher_b": X[:2], "logit_scale": 1.0},
        ValueError,
        "one number of rows, got a",
    ),
]


@pytest.mark.parametrize(
    ("function", "args", "options", "error", "message"),
    BAD,
    ids=[f"{row[0].__name__}-{i}" for i, row in enumerate(BAD)],
)
def test_refuses(function, args, options, error, message):
    with pytest.raises(error, match=message):
        inspect.unwrap(function)(*args, **options)
