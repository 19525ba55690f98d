"""What an operator makes of a batch of which only the spec is known, or which has no rows."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from datarax.core import masks, spec
from datarax.core.element_batch import Batch

Run = Callable[[Any, Batch, Any], Batch]


def result_spec(op: Any, batch: Batch, stats: Any = None, *, epoch: Any = None, run: Run) -> Batch:
    """The spec of `run(op, batch, stats)` for a batch of specs; no state is touched."""
    graph, state = nnx.split(op)

    def traced(state: Any, batch: Batch) -> Batch:
        op = nnx.merge(graph, state)
        op.checks_structure = False  # get_output_structure may have called this
        return run(op, batch.replace(epoch=epoch), stats)

    return jax.eval_shape(traced, state, batch)


def result_of_no_rows(op: Any, batch: Batch, stats: Any, *, run: Run) -> Batch:
    """The fields that `run(op, batch, stats)` would write, for a batch without rows."""

    def two(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype)

    rows = jax.tree.map(two, batch.replace(batch_state=None, epoch=None))
    rows = rows.replace(batch_state=spec.spec_of(batch.batch_state))
    out = result_spec(op, rows, stats, epoch=batch.epoch, run=run)
    zero = jax.tree.map(
        lambda s: jnp.zeros((0, *s.shape[1:]), s.dtype), out.replace(batch_state=None, epoch=None)
    )
    held = masks.paths(batch.batch_state)
    state = jax.tree_util.tree_map_with_path(
        lambda path, s: held.get(masks.leaf_path(path), jnp.zeros(s.shape, s.dtype)),
        out.batch_state,
    )
    return zero.replace(batch_state=state, epoch=batch.epoch, metadata=batch.metadata)


def two_rows(data: Any, state: Any) -> Batch:
    """The spec of a batch of two such records: with one, an axis might be taken for another."""
    return Batch(spec.batch_spec(data, 2), spec.batch_spec(state, 2))
