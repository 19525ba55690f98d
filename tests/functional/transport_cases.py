"""Rows of optimal transport: the regularised cost of two sets, and what a plan brings."""

import transport_oracles as oracle
from functional_case import Case, N

from datarax import functional

EXACT = {"num_iterations": 500, "tolerance": 1e-13}


def _between(name, solver, reference, *, metric="squared_euclidean", **options):
    def run(a, b, mask, ids):
        cost = functional.transport_cost(a, b, metric=metric, a_mask=mask, b_mask=mask)
        return solver(cost, a_mask=mask, b_mask=mask, **EXACT, **options).regularised_cost

    return _set(name, run, reference)


def _set(name, run, reference):
    return Case(
        name=name,
        run=run,
        oracle=reference,
        shapes=((N, 4), (N, 4)),
        kind="set",
        mask=(N,),
        spoiled=(0, 1),
        tolerance=5e-2,
    )


def _gromov(a, b, mask, ids):
    first, second = (functional.transport_cost(x, x, a_mask=mask, b_mask=mask) for x in (a, b))
    return functional.gromov_wasserstein(
        first,
        second,
        a_mask=mask,
        b_mask=mask,
        epsilon=2.0,
        num_iterations=300,
        inner_iterations=50,
        tolerance=1e-13,
    ).regularised_cost


CASES = [
    _between(
        "sinkhorn", functional.sinkhorn, oracle.regularised(oracle.sinkhorn, 0.5), epsilon=0.5
    ),
    _between(
        "sinkhorn_cosine",
        functional.sinkhorn,
        oracle.regularised(oracle.sinkhorn, 0.5, oracle.cosine_distances),
        metric="cosine",
        epsilon=0.5,
    ),
    _between(
        "unbalanced_sinkhorn",
        functional.unbalanced_sinkhorn,
        oracle.regularised(oracle.unbalanced_sinkhorn, 0.5),
        epsilon=0.5,
        relaxation=0.7,
    ),
    _between(
        "unbalanced_sinkhorn_entropy",
        functional.unbalanced_sinkhorn,
        oracle.regularised(oracle.entropy_sinkhorn, 0.5),
        epsilon=0.5,
        relaxation=0.7,
        regulariser="entropy",
    ),
    _between(
        "partial_sinkhorn",
        functional.partial_sinkhorn,
        oracle.regularised(oracle.partial_sinkhorn, 0.5),
        epsilon=0.5,
        mass=0.6,
    ),
    _set(
        "sinkhorn_divergence",
        lambda a, b, mask, ids: functional.sinkhorn_divergence(
            a, b, a_mask=mask, b_mask=mask, epsilon=0.5, **EXACT
        ),
        oracle.sinkhorn_divergence,
    ),
    _set("gromov_wasserstein", _gromov, oracle.gromov),
]
