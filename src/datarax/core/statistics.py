"""Statistics as state: arrays in a Variable, everything else beside them as static data."""

import dataclasses
from collections.abc import Hashable
from typing import Any

import jax
import numpy as np
from flax import nnx

ORIGINS = ("none", "precomputed", "computed", "set")


class Held:
    """The static rest of statistics: their structure, and the leaves that are no arrays.

    Compared by structure and by those leaves; arrays never take part.
    """

    def __init__(self, treedef: Any, static: tuple[tuple[int, Any], ...]) -> None:
        self.treedef = treedef
        self.static = static

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Held):
            return False
        return bool(self.treedef == other.treedef and self.static == other.static)

    def __hash__(self) -> int:
        kinds = ((i, x if isinstance(x, Hashable) else type(x)) for i, x in self.static)
        return hash((self.treedef, tuple(kinds)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Packed:
    """Statistics as a pytree whose leaves are arrays only.

    Attributes:
      arrays: the array leaves.
      held: the static rest; `None` for no statistics.
      origin: one of `ORIGINS`.
    """

    arrays: tuple[Any, ...]
    held: Held | None = dataclasses.field(metadata={"static": True})
    origin: str = dataclasses.field(metadata={"static": True})


class Statistic(nnx.Variable):
    """The statistics of a module, `Packed`."""


def pack(stats: dict[str, Any] | None, origin: str) -> Packed:
    """Split statistics into their arrays and the static rest."""
    if stats is None:
        return Packed((), None, origin)
    leaves, treedef = jax.tree.flatten(stats)
    arrays = tuple(x for x in leaves if is_array(x))
    static = tuple((i, x) for i, x in enumerate(leaves) if not is_array(x))
    return Packed(arrays, Held(treedef, static), origin)


def unpack(packed: Packed) -> dict[str, Any] | None:
    """The inverse of `pack`."""
    if packed.held is None:
        return None
    static = dict(packed.held.static)
    arrays = iter(packed.arrays)
    size = packed.held.treedef.num_leaves
    leaves = [static[i] if i in static else next(arrays) for i in range(size)]
    return jax.tree.unflatten(packed.held.treedef, leaves)


def is_array(x: Any) -> bool:
    """Whether a leaf is an array or a number: what can be traced and saved."""
    return isinstance(x, jax.Array | np.ndarray | np.generic | int | float | complex)
