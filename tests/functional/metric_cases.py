"""Rows of the measures that have gradients."""

import metric_oracles as oracle
from functional_case import Case, N

from datarax import functional

CASES = [
    Case(
        name="distribution_gap",
        run=lambda a, b, mask, ids: functional.distribution_gap(a, b, where=mask),
        oracle=oracle.distribution_gap,
        shapes=((N, 4), (N, 4)),
        kind="set",
        mask=(N,),
        spoiled=(0, 1),
    ),
    Case(
        name="effective_rank",
        run=lambda x, mask, ids: functional.effective_rank(x, where=mask),
        oracle=oracle.effective_rank,
        shapes=((N, 4),),
        kind="set",
        mask=(N,),
        spoiled=(0,),
    ),
    Case(
        name="cknna",
        run=lambda a, b, mask, ids: functional.cknna(a, b, k=3, where=mask, debiased=False),
        oracle=oracle.biased_cknna,
        shapes=((N, 4), (N, 3)),
        kind="set",
        mask=(N,),
        spoiled=(0, 1),
    ),
    Case(
        name="class_embeddings",
        run=lambda prompts, mask, ids: functional.class_embeddings(prompts, mask=mask),
        oracle=oracle.class_embeddings,
        shapes=((N, 3, 4),),
        kind="rows",
        mask=(N, 3),
        spoiled=(0,),
    ),
]
