"""The contract: configurations, modules, records and batches, operators, sources."""

from datarax.core.config import DataraxModuleConfig, OperatorConfig
from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig
from datarax.core.data_source import DataSourceModule
from datarax.core.element_batch import Batch, Element, split_index
from datarax.core.module import DataraxModule
from datarax.core.operator import OperatorModule

__all__ = [
    "Batch",
    "CrossModalOperator",
    "CrossModalOperatorConfig",
    "DataSourceModule",
    "DataraxModule",
    "DataraxModuleConfig",
    "Element",
    "OperatorConfig",
    "OperatorModule",
    "split_index",
]
