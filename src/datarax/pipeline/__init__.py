"""From a source to batches: order, position, resume."""

from datarax.pipeline.loader import ColumnarSource, Loader
from datarax.pipeline.order import epoch_order

__all__ = ["ColumnarSource", "Loader", "epoch_order"]
