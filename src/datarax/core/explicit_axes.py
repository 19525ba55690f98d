"""Operators on a batch that is sharded over Explicit axes of a mesh.

With `AxisType.Explicit`, the default of `jax.make_mesh`, an array's sharding is in its type, and an
operation must say how its result lies. An operator knows what is a row; so it runs as a region of
Auto axes, and what it writes is typed again at the end: rows as the batch's rows, the rest whole.
"""

import operator
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

import flax.errors
import jax
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from datarax.core.counter import Counter
from datarax.core.element_batch import PARTS, Batch
from datarax.core.statistics import pack, unpack

OF_ROWS = ("data", "states", "valid_mask", "presence", "record_index")

Run = Callable[[Any, Batch, Any], Batch]
parts_of = operator.attrgetter(*PARTS)


def batch_sharding(batch: Batch) -> NamedSharding | None:
    """How rows lie on the Explicit axes of a mesh; `None` where no row does."""
    for name, part in zip(PARTS, parts_of(batch), strict=True):
        for leaf in jax.tree.leaves(part) if name in OF_ROWS else ():
            sharding = jax.typeof(leaf).sharding
            kinds = dict(zip(sharding.mesh.axis_names, sharding.mesh.axis_types, strict=True))
            entry = sharding.spec[0] if len(sharding.spec) else None
            axes = entry if isinstance(entry, tuple) else (entry,)
            if any(kinds.get(axis) == AxisType.Explicit for axis in axes):
                return NamedSharding(sharding.mesh, PartitionSpec(entry))
    return None


def run_in_auto_axes(
    op: Any, batch: Batch, stats: Any, *, sharding: NamedSharding, run: Run
) -> Batch:
    """`run(op, batch, stats)` with all Explicit axes as Auto ones.

    Args:
      op: the operator; Variables that `run` changes are changed.
      batch: the records.
      stats: explicit statistics, or `None`.
      sharding: of the rows, as `batch_sharding` found it.
      run: what to do.

    Returns:
      The new batch: new rows lie as `sharding` says, new values of the whole batch and of Variables
      are on every device, everything else is the same object as in `batch`.
    """
    mesh = sharding.mesh
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    explicit = tuple(axis for axis, kind in kinds if kind == AxisType.Explicit)
    whole = NamedSharding(mesh, PartitionSpec())
    region = _Region(op, batch, run)
    enter = jax.sharding.auto_axes(region, axes=explicit, out_sharding=(sharding, whole, whole))
    packed = None if stats is None else pack(stats, "set")
    rows, others, changed = enter(region.state, parts_of(batch), packed)
    variables = _variables(op)
    for path, value in zip(region.changed, changed, strict=True):
        # A plain JAX transform may hold back the counters of inner operators, as it does elsewhere.
        counts = isinstance(variables[path], Counter)
        with suppress(flax.errors.TraceContextError) if counts else nullcontext():
            variables[path].set_raw_value(value)
    return region.result(rows, others)


class _Region:
    """The part of a program in which the axes are Auto, and how its results go together."""

    def __init__(self, op: Any, batch: Batch, run: Run) -> None:
        self.graph, self.state = nnx.split(op)
        self.batch, self.run = batch, run
        self.changed: list[Any] = []
        self.sources: list[int | str] = []  # of each leaf: which one it was, or where it is found
        self.treedef: Any = None

    def __call__(self, state: Any, parts: tuple[Any, ...], stats: Any) -> Any:
        op = nnx.merge(self.graph, state)
        variables = _variables(op)
        before = {path: x.get_raw_value() for path, x in variables.items()}
        out = self.run(op, Batch(*parts), None if stats is None else unpack(stats))
        after = {path: x.get_raw_value() for path, x in variables.items()}
        self.changed = [path for path, value in after.items() if value is not before[path]]
        held = {id(leaf): i for i, leaf in enumerate(jax.tree.leaves(parts))}
        found: dict[str, list[Any]] = {"rows": [], "others": []}
        named = dict(zip(PARTS, parts_of(out), strict=True))
        self.treedef = jax.tree.structure(tuple(named.values()))
        for name, part in named.items():
            for leaf in jax.tree.leaves(part):
                kind = "rows" if name in OF_ROWS else "others"
                self.sources.append(held.get(id(leaf), kind))
                if id(leaf) not in held:
                    found[kind].append(leaf)
        return found["rows"], found["others"], [after[path] for path in self.changed]

    def result(self, rows: list[Any], others: list[Any]) -> Batch:
        """The new batch, what was handed through being that of the old one."""
        held = jax.tree.leaves(parts_of(self.batch))
        new = {"rows": iter(rows), "others": iter(others)}
        leaves = [next(new[x]) if isinstance(x, str) else held[x] for x in self.sources]
        out: Batch = Batch(*jax.tree.unflatten(self.treedef, leaves))
        return out.replace(metadata=self.batch.metadata)


def _variables(op: Any) -> dict[Any, nnx.Variable]:
    return {path: x for path, x in nnx.iter_graph(op) if isinstance(x, nnx.Variable)}
