"""Rows of the alignment losses."""

from functools import partial

import functional_oracles as oracle
from functional_case import Case, N, vectors

from datarax import functional

CASES = [
    vectors("cosine_alignment", functional.cosine_alignment, lambda *x: 1 - oracle.cosine(*x)),
    vectors("squared_error_alignment", functional.squared_error_alignment, oracle.squared_error),
    vectors("alignment_loss", functional.alignment_loss, oracle.power_distance(2)),
    vectors(
        "alignment_loss_1", partial(functional.alignment_loss, power=1.0), oracle.power_distance(1)
    ),
    vectors(
        "alignment_loss_half",
        partial(functional.alignment_loss, power=0.5),
        oracle.power_distance(0.5),
    ),
    Case(
        name="uniformity",
        run=lambda x, mask, ids: functional.uniformity(x, where=mask),
        oracle=oracle.uniformity,
        shapes=((N, 4),),
        kind="set",
        mask=(N,),
        spoiled=(0,),
        tolerance=5e-2,
    ),
    Case(
        name="modality_gap",
        run=lambda a, b, mask, ids: functional.modality_gap(a, b, where=mask),
        oracle=oracle.gap,
        shapes=((N, 4), (N, 4)),
        kind="set",
        mask=(N,),
        spoiled=(0, 1),
    ),
]
