"""Optimal transport between sets of points, and between their distances."""

from datarax.functional.transport.costs import PointCost
from datarax.functional.transport.gromov import GromovTransport, gromov_wasserstein
from datarax.functional.transport.point_plan import PointPlan
from datarax.functional.transport.point_sets import (
    point_cost,
    sinkhorn_divergence,
    transport_cost,
    transport_features,
)
from datarax.functional.transport.sinkhorn import (
    Transport,
    partial_sinkhorn,
    sinkhorn,
    unbalanced_sinkhorn,
)

__all__ = [
    "GromovTransport",
    "PointCost",
    "PointPlan",
    "Transport",
    "gromov_wasserstein",
    "partial_sinkhorn",
    "point_cost",
    "sinkhorn",
    "sinkhorn_divergence",
    "transport_cost",
    "transport_features",
    "unbalanced_sinkhorn",
]
