"""Configurations: frozen dataclasses that reject what is wrong and repair nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flax import nnx

BATCH_STRATEGIES = ("vmap", "scan")


@dataclass(frozen=True)
class DataraxModuleConfig:
    """What every datarax module can be told.

    Equality and hash never look into arrays: `precomputed_stats` takes no part in either (the
    module holds them as state), so that a config may be static under `jax.jit`.

    Attributes:
      cacheable: serve a repeated call on the same content from memory.
      batch_stats_fn: maps the batched data of a call to a dict of statistics; a function or a
        module. A module is lifted: its parameters are the operator's. It sees zeros in the rows
        that are skipped and in the fields that are absent.
      precomputed_stats: statistics known in advance. Excludes `batch_stats_fn`.

    Raises:
      ValueError: if both statistics are given, `batch_stats_fn` is not callable, or
        `precomputed_stats` is not a dict.
    """

    cacheable: bool = False
    batch_stats_fn: Callable | nnx.Module | None = None
    precomputed_stats: dict[str, Any] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.batch_stats_fn is not None and self.precomputed_stats is not None:
            raise ValueError("batch_stats_fn excludes precomputed_stats: give one of them")
        check_flag("cacheable", self.cacheable)
        if self.batch_stats_fn is not None and not callable(self.batch_stats_fn):
            raise ValueError(f"batch_stats_fn must be callable, got {self.batch_stats_fn!r}")
        if self.precomputed_stats is not None and not isinstance(self.precomputed_stats, dict):
            raise ValueError(
                f"precomputed_stats must be a dict, got {type(self.precomputed_stats).__name__}"
            )


@dataclass(frozen=True)
class OperatorConfig(DataraxModuleConfig):
    """What every operator can be told.

    Attributes:
      stochastic: the operator draws random parameters.
      stream_name: the RNG stream to draw from; needed if stochastic, forbidden otherwise.
      batch_strategy: how `apply` is mapped over the records, `"vmap"` (all at once) or `"scan"`
        (one after another, in the memory of one).

    Raises:
      ValueError: if the stream does not fit `stochastic`, or the strategy is unknown.
    """

    stochastic: bool = False
    stream_name: str | None = None
    batch_strategy: str = "vmap"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("stochastic", self.stochastic)
        if self.stream_name is not None and not isinstance(self.stream_name, str):
            raise ValueError(f"stream_name must be a string, got {self.stream_name!r}")
        if self.stochastic and not self.stream_name:
            raise ValueError("a stochastic operator needs stream_name, the RNG stream to draw from")
        if not self.stochastic and self.stream_name is not None:
            raise ValueError(
                f"stream_name is {self.stream_name!r} but stochastic is False: "
                "a deterministic operator has no stream"
            )
        if self.batch_strategy not in BATCH_STRATEGIES:
            raise ValueError(
                f"batch_strategy must be one of {BATCH_STRATEGIES}, got {self.batch_strategy!r}"
            )


def check_flag(name: str, value: Any) -> None:
    """Reject a value that is neither True nor False.

    Raises:
      ValueError: with the value.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")


def check_field_list(name: str, value: Any, *, unique: bool) -> None:
    """Reject a value that is not a non-empty list of non-empty strings.

    Raises:
      ValueError: saying which argument, what was expected and what came.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name} must be a non-empty list of field names, got {value!r}")
    for entry in value:
        if not isinstance(entry, str) or not entry:
            raise ValueError(f"{name} must hold non-empty strings, got {entry!r} in {value!r}")
    if unique and len(set(value)) != len(value):
        raise ValueError(f"{name} must not repeat a field, got {value!r}")
