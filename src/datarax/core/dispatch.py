"""The eager call: one compiled function over a flat list of leaves, built once for an operator.

A plan remembers an operator's Variables in the order of its graph and the attributes of every node
below it. A call compares the attributes by identity (a replaced parameter, part or flag makes a new
plan), reads the Variables, and calls one `jax.jit` that returns only what is new. A plan lives in
a slot of its operator, out of sight of NNX: a clone, a merged copy or an unpickled operator does
not have it.
"""

import functools
import hashlib
import operator
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from flax import nnx

from datarax.core.element_batch import PARTS, Batch, covers
from datarax.core.statistics import Packed, pack, unpack

CACHE_ENTRIES = 32
FEW_ROWS = 1024
COMPILED_GRAPHS = 32  # an attribute that takes a new value at every call must not fill the memory

Run = Callable[[Any, Batch, Any], Batch]
_END = object()
_get_parts = operator.attrgetter(*PARTS)


@jax.tree_util.register_static
class Recipe:
    """What tracing a call showed of the batches that fit it.

    Attributes:
      size: the number of rows.
      valid, masks: whether `valid_mask`, and which presence entries, say which rows are processed.
      layout: `None` where only top-level fields and presence entries are new; otherwise the
        structure of the new batch's parts and, for each of its leaves, the number of the input leaf
        that it is (-1 for the next of the new arrays).
    """

    __slots__ = ("layout", "masks", "size", "valid")

    def __init__(self, batch: Batch, required: Sequence[str], layout: Any) -> None:
        self.size = batch.batch_size
        self.valid = batch.valid_mask is not None
        self.masks = [n for n in batch.presence if any(covers(n, field) for field in required)]
        self.layout = layout


# What a compiled call returns: new fields, new presence entries, other new leaves of the batch, new
# values of Variables by position in the plan, and how they go together.
Changes = tuple[dict[str, Any], dict[str, Any], tuple[Any, ...], dict[int, Any], Recipe]


class Plan:
    """How to call one operator, while nothing of it is replaced."""

    def __init__(self, op: nnx.Module, run: Run, compiled: dict[Any, Any]) -> None:
        self.nodes: list[Any] = []  # of each node a live view of its attributes
        found: dict[tuple[str, ...], nnx.Variable] = {}
        for path, node in nnx.iter_graph(op):
            if isinstance(node, nnx.Variable):
                found[tuple(map(str, path))] = node
            elif isinstance(node, nnx.RngStream | nnx.Rngs) and not reads_generators(op):
                continue
            elif isinstance(node, nnx.Pytree):
                self.nodes.append(vars(node).values())
            elif isinstance(node, dict):
                self.nodes.append(node.values())
            elif isinstance(node, list):
                self.nodes.append(node)
        self.nodes.append((_END,))  # so that neither can be the longer one unnoticed
        self.held = tuple(chain.from_iterable(self.nodes))
        graph, passed, rest = nnx.split(op, _passed(op), ...)
        leaves, treedef = jax.tree_util.tree_flatten_with_path(passed, is_leaf=_is_variable)
        self.variables: list[Any] = []
        for path, leaf in leaves:
            key = tuple(jax.tree_util.keystr((k,), simple=True) for k in path)
            self.variables.append(found[key] if _is_variable(leaf) else _Constant(leaf))
        self.readers = [variable.get_raw_value for variable in self.variables]
        self.graph = graph
        self.call = _compile(_Layout(graph, rest, treedef, self.variables), run, compiled)
        own = vars(op)["_statistic"]
        self.statistic = next(i for i, v in enumerate(self.variables) if v is own)

    def fits(self) -> bool:
        """Whether nothing was replaced since the plan was made."""
        return all(map(operator.is_, chain.from_iterable(self.nodes), self.held))

    def values(self) -> list[Any]:
        """The values of all Variables that the compiled function reads."""
        return [read() for read in self.readers]


class _Constant:
    """An array that is an attribute itself: replaced by assignment only, which makes a new plan."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def get_raw_value(self) -> Any:
        return self._value


class _Layout:
    """Builds the operator from the values of its Variables, inside the trace."""

    def __init__(self, graph: Any, rest: Any, treedef: Any, variables: list[Any]) -> None:
        self.graph, self.rest, self.treedef = graph, rest, treedef
        self.kinds = [(type(v), v.get_metadata()) if _is_variable(v) else None for v in variables]

    def merge(self, values: list[Any]) -> tuple[nnx.Module, list[Any]]:
        leaves = [
            value if kind is None else kind[0].from_metadata(value, dict(kind[1]))
            for kind, value in zip(self.kinds, values, strict=True)
        ]
        op = nnx.merge(self.graph, jax.tree.unflatten(self.treedef, leaves), self.rest)
        found = {
            tuple(map(str, path)): node
            for path, node in nnx.iter_graph(op)
            if isinstance(node, nnx.Variable)
        }
        dummy = jax.tree.unflatten(self.treedef, range(len(leaves)))
        paths, _ = jax.tree_util.tree_flatten_with_path(dummy)
        merged: list[Any] = [None] * len(leaves)
        for path, i in paths:
            key = tuple(jax.tree_util.keystr((k,), simple=True) for k in path)
            merged[i] = found.get(key)
        return op, merged


def _compile(layout: _Layout, run: Run, compiled: dict[Any, Any]) -> Any:
    """The compiled call of a graph; one graph (say, after eval() and train()) compiles once."""
    try:
        hash(layout.graph)
    except TypeError:
        return _jit(layout, run)
    if layout.graph not in compiled:
        if len(compiled) == COMPILED_GRAPHS:
            compiled.pop(next(iter(compiled)))
        compiled[layout.graph] = _jit(layout, run)
    return compiled[layout.graph]


def _jit(layout: _Layout, run: Run) -> Any:
    def call(values: list[Any], parts: tuple[Any, ...], stats: Packed | None) -> Changes:
        op, variables = layout.merge(values)
        batch: Batch = Batch(*parts)
        out = run(op, batch, None if stats is None else unpack(stats))
        changed = {
            i: variable.get_raw_value()
            for i, (variable, value) in enumerate(zip(variables, values, strict=True))
            if variable is not None and _differs(variable.get_raw_value(), value)
        }
        if _adds_fields_only(batch, out):
            fields = {n: x for n, x in out.data.items() if _differs(x, batch.data.get(n))}
            presence = {n: x for n, x in out.presence.items() if x is not batch.presence.get(n)}
            return fields, presence, (), changed, Recipe(batch, op.required_fields, None)
        position = {id(leaf): i for i, leaf in enumerate(jax.tree.leaves(parts))}
        leaves, treedef = jax.tree.flatten(_get_parts(out))
        sources = tuple(position.get(id(leaf), -1) for leaf in leaves)
        arrays = tuple(x for x, source in zip(leaves, sources, strict=True) if source < 0)
        recipe = Recipe(batch, op.required_fields, (treedef, sources))
        return {}, {}, arrays, changed, recipe

    return jax.jit(call)


def _adds_fields_only(batch: Batch, out: Batch) -> bool:
    """Whether new fields and presence entries of plain dicts are all that is new."""
    if type(batch.data) is not dict or type(out.data) is not dict:
        return False
    held = {id(leaf) for leaf in jax.tree.leaves(batch.data)}
    for name, x in out.data.items():  # a new tree, or an alias, of leaves that came in
        if _differs(x, batch.data.get(name)) and any(id(y) in held for y in jax.tree.leaves(x)):
            return False
    kept = batch.data.keys() <= out.data.keys() and batch.presence.keys() <= out.presence.keys()
    others = zip(_get_parts(batch), _get_parts(out), PARTS, strict=True)
    return kept and not any(
        _differs(new, old) for old, new, name in others if name not in ("data", "presence")
    )


def _differs(new: Any, old: Any) -> bool:
    if new is old:
        return False
    if jax.tree.structure(new) != jax.tree.structure(old):
        return True
    return any(map(operator.is_not, jax.tree.leaves(new), jax.tree.leaves(old)))


def _passed(op: Any) -> Callable[[Any, Any], bool]:
    """Which Variables the compiled function reads: all but the operator's own counters."""
    own = (("applied_count",), ("skipped_count",))
    generators = reads_generators(op)

    def keep(path: Any, value: Any) -> bool:
        is_state = isinstance(value, nnx.RngState)
        return tuple(path) not in own and (generators or not is_state)

    return keep


def reads_generators(op: Any) -> bool:
    """Whether random generators are passed to the compiled function.

    Those of a deterministic operator that maps `apply` are not: `apply` may not use them, and
    typed keys are slow to pass.
    """
    return op.config.stochastic or op.overrides_apply_batch


def _is_variable(x: Any) -> bool:
    return isinstance(x, nnx.Variable)


class Runtime:
    """What belongs to one operator object: its plan, its compiled calls, its cached results."""

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.compiled: dict[Any, Any] = {}
        self.cache: OrderedDict[Any, tuple[Changes, Any]] = OrderedDict()


class HasRuntime:
    """Gives a module a runtime in a slot, which is not in `vars()`.

    It is no part of the graph, of a copy or of a pickle.
    """

    __slots__ = ("_runtime",)
    _runtime: Runtime

    @property
    def runtime(self) -> Runtime:
        """How to call this very object eagerly, and its cached results."""
        try:
            return self._runtime
        except AttributeError:
            object.__setattr__(self, "_runtime", Runtime())
            return self._runtime


_trace_state = jax.extend.core.get_opaque_trace_state
with jax.ensure_compile_time_eval():
    _EAGER = _trace_state()


def is_eager() -> bool:
    """Whether no JAX transform is being traced."""
    return _trace_state() == _EAGER


def call(
    op: Any,
    batch: Batch,
    stats: Any,
    *,
    run: Run,
    statistics: Callable[[Any, Batch], Any] | None = None,
) -> Batch:
    """Call an operator eagerly.

    Args:
      op: the operator.
      batch: concrete arrays.
      stats: explicit statistics, or `None`.
      run: what to do, `run(op, batch, stats)`; traced.
      statistics: finds the statistics of a batch; run eagerly, unless the cache has the result.
    """
    try:
        runtime = op._runtime
    except AttributeError:
        runtime = op.runtime
    plan = runtime.plan
    if plan is None or not plan.fits():
        plan = runtime.plan = Plan(op, run, runtime.compiled)
    parts = _get_parts(batch)
    key = None
    if op.config.cacheable and not (op.config.stochastic and not op.deterministic):
        computes = statistics is not None and op.statistics_origin != "set"
        key = _content(plan, (parts, stats), computes=computes)
        if key in runtime.cache:
            runtime.cache.move_to_end(key)
            changes, kept = runtime.cache[key]
            if kept is not None:
                plan.variables[plan.statistic].set_raw_value(kept)
            return _finish(op, batch, changes)
    if statistics is not None:
        stats = statistics(op, batch)
    packed = None if stats is None else pack(stats, "set")
    try:
        changes = plan.call([read() for read in plan.readers], parts, packed)
    except TypeError:
        op.check_batch(batch)  # says better what is wrong with a field that is no array
        raise
    for i, value in changes[3].items():
        plan.variables[i].set_raw_value(value)
    if key is not None and not changes[3]:
        kept = None if statistics is None else plan.variables[plan.statistic].get_raw_value()
        runtime.cache[key] = (changes, kept)
        if len(runtime.cache) > CACHE_ENTRIES:
            runtime.cache.popitem(last=False)
    return _finish(op, batch, changes)


def _finish(op: Any, batch: Batch, changes: Changes) -> Batch:
    """Count the rows of a call, and put its result together."""
    fields, presence, arrays, _, recipe = changes
    if recipe.valid or recipe.masks:
        masks = [batch.presence[name] for name in recipe.masks]
        if recipe.valid:
            masks.append(batch.valid_mask)
        processed = count_rows(masks, recipe.size)
        op.applied_count.add_on_host(processed)
        if processed is not recipe.size:
            op.skipped_count.add_on_host(recipe.size - processed)
    else:
        op.applied_count.add_on_host(recipe.size)
    if recipe.layout is None:
        return batch.with_fields(fields, presence)
    treedef, sources = recipe.layout
    held = jax.tree.leaves(_get_parts(batch))
    new = iter(arrays)
    leaves = [held[source] if source >= 0 else next(new) for source in sources]
    out: Batch = Batch(*treedef.unflatten(leaves))
    same_rows = out.batch_size == batch.batch_size and out.record_index is batch.record_index
    return out.replace(metadata=batch.metadata) if same_rows else out


def count_rows(masks: list[Any], size: int) -> Any:
    """The number of rows where all masks hold: an int where their bytes are on this host."""
    if _host_memory():
        try:
            if size <= FEW_ROWS:
                # A bool is a byte, 0 or 1: as one int a mask is its rows' bits. Half NumPy's time.
                bits = [int.from_bytes(mask, "little") for mask in masks]
                return functools.reduce(operator.and_, bits).bit_count()
            rows = functools.reduce(operator.and_, map(np.asarray, masks))
            return int(np.count_nonzero(rows))
        except (RuntimeError, BufferError):  # it is spread over devices, or hosts
            pass
    return jnp.sum(functools.reduce(operator.and_, masks), dtype=jnp.uint32)


@functools.cache
def _host_memory() -> bool:
    return jax.default_backend() == "cpu"


def reset_cache(op: nnx.Module) -> None:
    """Forget the results kept for an operator."""
    op.runtime.cache.clear()


def _content(plan: Plan, inputs: Any, *, computes: bool) -> Any:
    """A key for all that a result depends on.

    The compiled call stands for graph and config; the rest are Variables and inputs.
    """
    digest = hashlib.blake2b(digest_size=32)
    values = plan.values()
    if computes:
        values[plan.statistic] = None  # computed anew from the inputs: not an input itself
    inputs = (values, inputs[0], None if inputs[1] is None else pack(inputs[1], "set"))
    leaves, treedef = jax.tree_util.tree_flatten(inputs)
    for leaf in leaves:
        leaf = jax.random.key_data(leaf) if _is_key(leaf) else leaf
        array, weak = np.asarray(leaf), isinstance(leaf, jax.Array) and leaf.weak_type
        digest.update(f"{array.dtype}{array.shape}{weak}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)  # bfloat16 is no buffer
    return plan.call, treedef, digest.digest()


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
