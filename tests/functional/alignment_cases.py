"""Rows of the alignment losses."""

from functools import partial

import alignment_oracles as loop
import functional_oracles as oracle
from functional_case import Case, N, vectors

from datarax import functional


def _masked(name, function, reference, kind="set", *, widths=(4, 4), **options):
    """A row of a function of arrays and the mask `where`."""

    def run(*args):
        *arrays, mask, _ = args
        return function(*arrays, where=mask)

    return Case(
        name=name,
        run=run,
        oracle=reference,
        shapes=tuple((N, d) for d in widths),
        kind=kind,
        mask=(N,),
        spoiled=tuple(range(len(widths))),
        **options,
    )


def _cca(name, reference, widths=(4, 3), **options):
    return _masked(
        name,
        lambda *views, where: functional.cca_loss(views, where=where, **options),
        reference,
        widths=widths,
    )


def _distillation(a, b, s, t, where):
    return functional.similarity_distillation(
        a,
        b,
        teacher_a=s,
        teacher_b=t,
        logit_scale=2.0,
        teacher_logit_scale=0.5,
        where=where,
    )


POINTWISE = [
    vectors("cosine_alignment", functional.cosine_alignment, lambda *x: 1 - oracle.cosine(*x)),
    vectors("squared_error_alignment", functional.squared_error_alignment, oracle.squared_error),
    vectors("huber_alignment", functional.huber_alignment, loop.huber(1.0)),
    vectors("alignment_loss", functional.alignment_loss, oracle.power_distance(2)),
    vectors(
        "alignment_loss_1", partial(functional.alignment_loss, power=1.0), oracle.power_distance(1)
    ),
    vectors(
        "alignment_loss_half",
        partial(functional.alignment_loss, power=0.5),
        oracle.power_distance(0.5),
    ),
]
SETS = [
    _masked("uniformity", functional.uniformity, oracle.uniformity, widths=(4,), tolerance=5e-2),
    _masked("modality_gap", functional.modality_gap, oracle.gap),
    _masked(
        "centroid_uniformity",
        functional.centroid_uniformity,
        loop.centroid_uniformity,
        tolerance=5e-2,
    ),
    _masked("vicreg", functional.vicreg, loop.vicreg),
    _masked("barlow_twins", functional.barlow_twins, loop.barlow_twins()),
]
CORRELATIONS = [
    _cca("cca", loop.cca(ridge=0.1, power=2), (2, 3, 2), form="pairs", ridge=0.1),
    _cca("cca_ey", loop.eckart_young, (3, 3, 3), form="ey"),
]
KERNELS = [
    _masked(
        "hsic_rbf",
        partial(functional.hsic, kernel="rbf", bandwidth=2.0),
        loop.hsic(kernel="rbf", bandwidth=2.0),
        widths=(4, 3),
    ),
    _masked(
        "cka_rbf",
        partial(functional.cka, kernel="rbf"),
        loop.cka(kernel="rbf"),
        widths=(4, 3),
    ),
]
RELATIONS = [
    _masked(
        "cross_modal_consistency", functional.cross_modal_consistency, loop.cross_modal, "rows"
    ),
    _masked(
        "in_modal_consistency",
        functional.in_modal_consistency,
        loop.in_modal,
        "rows",
        widths=(4, 3),
    ),
    _masked(
        "similarity_matching",
        functional.similarity_matching,
        loop.similarity_matching,
        "rows",
        widths=(4, 3),
    ),
    _masked(
        "relational_distance",
        functional.relational_distance,
        loop.relational_distance,
        "rows",
        widths=(4, 3),
    ),
    _masked(
        "relational_angle",
        functional.relational_angle,
        loop.relational_angle,
        "rows",
        widths=(4, 3),
    ),
    _masked(
        "similarity_distillation",
        _distillation,
        loop.similarity_distillation(scale=2.0, teacher_scale=0.5, subtract_entropy=False),
        "rows",
        widths=(4, 4, 3, 3),
    ),
    _masked(
        "procrustes_rotation",
        partial(functional.procrustes_residual, reflection=False, center=True),
        loop.procrustes(reflection=False, center=True),
        "rows",
        widths=(2, 2),
    ),
]
CASES = [*POINTWISE, *SETS, *CORRELATIONS, *KERNELS, *RELATIONS]
