"""From a source to batches: order, position, resume."""

from datarax.pipeline.caps import ErrorCaps, TooManyErrors
from datarax.pipeline.ledger import Ledger, read_ledger
from datarax.pipeline.order import epoch_order
from datarax.pipeline.pipeline import Pipeline

__all__ = [
    "ErrorCaps",
    "Ledger",
    "Pipeline",
    "TooManyErrors",
    "epoch_order",
    "read_ledger",
]
