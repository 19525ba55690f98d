"""Optimal transport between sets of points, and between their distances."""

from datarax.functional.transport.gromov import GromovTransport, gromov_wasserstein
from datarax.functional.transport.point_sets import (
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
    "Transport",
    "gromov_wasserstein",
    "partial_sinkhorn",
    "sinkhorn",
    "sinkhorn_divergence",
    "transport_cost",
    "transport_features",
    "unbalanced_sinkhorn",
]
