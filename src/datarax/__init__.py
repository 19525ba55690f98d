"""Multi-modal records for JAX: read them, batch them, train cross-modal operators on them."""

import importlib
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
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

ROOMS = ("functional", "nn", "operators")


def __getattr__(name: str) -> Any:
    """The operators and their rooms, imported when first asked for: they cost most of an import."""
    if name in ROOMS:
        return importlib.import_module(f"datarax.{name}")
    if name in __all__:
        return vars(importlib.import_module("datarax.operators"))[name]
    raise AttributeError(f"module 'datarax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *ROOMS])
