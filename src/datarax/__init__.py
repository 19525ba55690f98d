"""Multi-modal records for JAX: read them, batch them, train cross-modal operators on them."""

from datarax.core import (
    Batch,
    CrossModalOperator,
    CrossModalOperatorConfig,
    DataraxModule,
    DataraxModuleConfig,
    DataSourceModule,
    Element,
    OperatorConfig,
    OperatorModule,
    split_index,
)
from datarax.operators import (
    AlignmentOperator,
    AlignmentOperatorConfig,
    ContrastiveOperator,
    ContrastiveOperatorConfig,
    CrossAttentionOperator,
    CrossAttentionOperatorConfig,
    FusionOperator,
    FusionOperatorConfig,
    ModalityDropout,
    ModalityDropoutConfig,
    Sequential,
    build_operator,
)

__version__ = "0.1.0"

__all__ = [
    "AlignmentOperator",
    "AlignmentOperatorConfig",
    "Batch",
    "ContrastiveOperator",
    "ContrastiveOperatorConfig",
    "CrossAttentionOperator",
    "CrossAttentionOperatorConfig",
    "CrossModalOperator",
    "CrossModalOperatorConfig",
    "DataSourceModule",
    "DataraxModule",
    "DataraxModuleConfig",
    "Element",
    "FusionOperator",
    "FusionOperatorConfig",
    "ModalityDropout",
    "ModalityDropoutConfig",
    "OperatorConfig",
    "OperatorModule",
    "Sequential",
    "__version__",
    "build_operator",
    "split_index",
]
