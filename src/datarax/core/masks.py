"""Masked slots: what a skipped row holds never reaches a value or a gradient."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from datarax.core.element_batch import Batch, covers
from datarax.core.fields import has_field


def select(where: Any, x: Any, otherwise: Any) -> Any:
    """`x` in the rows where the mask holds, something else in the others."""
    if where is None:
        return x
    rows = jnp.reshape(where, where.shape + (1,) * (jnp.ndim(x) - 1))
    return jnp.where(rows, x, jnp.asarray(otherwise, x.dtype))


def zero_skipped(batch: Batch, rows: Any) -> Batch:
    """The batch with zeros where a row is skipped and where a field is absent.

    Leaves that no mask speaks of are the same objects as in `batch`.
    """

    def clean(path: Any, leaf: Any) -> Any:
        name = ".".join(leaf_path(path))
        masks = [mask for entry, mask in batch.presence.items() if covers(entry, name)]
        for mask in masks if rows is None else [rows, *masks]:
            leaf = select(mask, leaf, 0)
        return leaf

    data = jax.tree_util.tree_map_with_path(clean, batch.data)
    states = jax.tree.map(lambda leaf: select(rows, leaf, 0), batch.states)
    return batch.replace(data=data, states=states)


def finish(
    batch: Batch, clean: Batch, out: Batch, *, rows: Any, read_fields: Sequence[str]
) -> Batch:
    """Undo `zero_skipped` after a batch-level operator: originals back, new fields masked.

    A field written anew is present where rows were processed, unless the operator gave it another
    presence, or read the field itself and left its presence as it was.

    Args:
      batch: the batch as it came.
      clean: what `zero_skipped` made of it.
      out: what the operator made of that.
      rows: the rows that were processed.
      read_fields: the fields that the operator reads.
    """
    before = paths(clean.data)
    original = paths(batch.data)
    written = []

    def put(path: Any, leaf: Any) -> Any:
        key = leaf_path(path)
        if key in before and before[key] is leaf:
            return original[key]
        written.append(".".join(key))
        return select(rows, leaf, 0)

    data = jax.tree_util.tree_map_with_path(put, out.data)
    states = out.states
    if jax.tree.structure(states) == jax.tree.structure(batch.states):
        states = jax.tree.map(
            lambda new, held, old: old if new is held else select(rows, new, old),
            states,
            clean.states,
            batch.states,
        )
    presence = dict(out.presence)
    for name in written:
        as_before = name in presence and presence[name] is clean.presence.get(name)
        if as_before and name not in read_fields:
            presence.pop(name)
        if rows is not None:
            presence[name] = rows & presence.get(name, rows)
    return out.replace(data=data, states=states, presence=of_fields(presence, data))


def written_presence(
    presence: dict[str, Any], written: Sequence[str], rows: Any, given: dict[str, Any]
) -> dict[str, Any]:
    """Presence after fields were written: the rows processed, or what the operator gave."""
    result = dict(presence)
    for name in written:
        if rows is None:
            result.pop(name, None)
        elif not any(covers(entry, name) for entry in given):
            result[name] = rows
    for name, mask in given.items():
        result[name] = mask if rows is None else mask & rows
    return result


def of_fields(presence: dict[str, Any], data: Any) -> dict[str, Any]:
    """The presence entries whose fields are still there."""
    return {name: mask for name, mask in presence.items() if has_field(data, name)}


def paths(data: Any) -> dict[tuple[str, ...], Any]:
    """The leaves of a tree by their paths."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(data)
    return {leaf_path(path): leaf for path, leaf in leaves}


def leaf_path(path: tuple[Any, ...]) -> tuple[str, ...]:
    """A JAX key path as field names."""
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def record_metadata(batch: Batch) -> dict[str, Any]:
    """The masks and indices that there are, with the batch axis; see `row_metadata`."""
    return {
        "valid": batch.valid_mask,
        "presence": dict(batch.presence),
        "record_index": batch.record_index,
    }


def row_metadata(row: dict[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """What `apply` sees of one row: `valid`, `presence` (of all `fields` too), `record_index`."""
    true = jnp.ones((), bool)
    presence = {}
    for name in dict.fromkeys([*fields, *row["presence"]]):
        presence[name] = true
        for entry, mask in row["presence"].items():
            if covers(entry, name):
                presence[name] = presence[name] & mask
    valid = true if row["valid"] is None else row["valid"]
    return {"valid": valid, "presence": presence, "record_index": row["record_index"]}
