"""Train on a data set, evaluate, and load what was trained."""

import importlib
from typing import TYPE_CHECKING, Any

from datarax.train.config import TrainConfig

if TYPE_CHECKING:
    from datarax.train.loop import train
    from datarax.train.run import Run, evaluate, load_run

__all__ = ["Run", "TrainConfig", "evaluate", "load_run", "train"]

_HOMES = {"Run": "run", "evaluate": "run", "load_run": "run", "train": "loop"}


def __getattr__(name: str) -> Any:
    """Imports what needs JAX when asked for it: `datarax --help` does not wait for that."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return vars(importlib.import_module(f"{__name__}.{_HOMES[name]}"))[name]
