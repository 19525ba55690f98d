"""Mapping a function of one record over a batch, masks honoured."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from datarax.core import masks
from datarax.core.element_batch import Batch


@dataclasses.dataclass
class _Written:
    """What tracing one record showed: which leaves are new, and the trees they belong to."""

    data: Any = None
    states: Any = None
    presence: Sequence[str] = ()


def map_records(
    apply: Callable[..., Any],
    batch: Batch,
    *,
    random_params: Any,
    stats: Any,
    required_fields: Sequence[str],
    read_fields: Sequence[str],
    strategy: str,
    declared: tuple[Any, Any] | None,
) -> Batch:
    """Apply a function of one record to every row.

    Only what the function writes leaves the mapping; a leaf that it hands through is the batch's
    own. Rows that are skipped get zeros in new fields and keep their states.

    Args:
      apply: `OperatorModule.apply`.
      batch: the records.
      random_params: tree with the batch on axis 0, or `None`.
      stats: handed to every call.
      required_fields: rows without one of these are skipped.
      read_fields: fields whose presence `apply` finds in its metadata.
      strategy: `"vmap"` or `"scan"`.
      declared: structures of data and state that `apply` must return, with `None` leaves.

    Raises:
      ValueError: if `apply` returns no triple, unknown metadata, or not what was declared.
    """
    rows = batch.where(*required_fields)
    clean = masks.zero_skipped(batch, rows)
    metadata = masks.record_metadata(batch)
    written = _Written()

    def one(data: Any, state: Any, meta: Any, params: Any) -> Any:
        meta = masks.row_metadata(meta, read_fields)
        own = {**meta, "presence": dict(meta["presence"])}  # apply may write into it
        result = apply(data, state, own, params, stats)
        if not isinstance(result, tuple) or len(result) != 3:
            raise ValueError(f"apply must return (data, state, metadata), got {type(result)}")
        if declared is not None:
            _check_declared(declared, result[:2])
        presence = _returned_presence(meta, result[2])
        written.presence = list(presence)
        new_data, written.data = _new_leaves(data, result[0])
        new_states, written.states = _new_leaves(state, result[1])
        return new_data, new_states, [jnp.asarray(x, bool) for x in presence.values()]

    arguments = (clean.data, clean.states, metadata, random_params)
    if strategy == "vmap":
        new_data, new_states, found = jax.vmap(one)(*arguments)
    else:
        new_data, new_states, found = jax.lax.map(lambda row: one(*row), arguments)
    data = _rebuild(written.data, batch.data, [masks.select(rows, x, 0) for x in new_data])
    states = _rebuild_states(written.states, batch.states, rows, new_states)
    given = dict(zip(written.presence, found, strict=True))
    names = [".".join(path) for path, old in written.data[1] if not old]
    presence = masks.written_presence(batch.presence, names, rows, given)
    presence = masks.of_fields(presence, data)
    return batch.replace(data=data, states=states, presence=presence)


def _new_leaves(before: Any, after: Any) -> tuple[list[Any], Any]:
    """The leaves that are not handed through, and `(treedef, [(path, handed through)])`."""
    held = masks.paths(before)
    leaves, treedef = jax.tree_util.tree_flatten_with_path(after)
    layout = [(masks.leaf_path(path), held.get(masks.leaf_path(path)) is x) for path, x in leaves]
    new = [jnp.asarray(x) for (_, x), (_, old) in zip(leaves, layout, strict=True) if not old]
    return new, (treedef, layout)


def _rebuild(layout: Any, originals: Any, new: list[Any]) -> Any:
    treedef, entries = layout
    held = masks.paths(originals)
    fresh = iter(new)
    return jax.tree.unflatten(
        treedef, [held[path] if old else next(fresh) for path, old in entries]
    )


def _rebuild_states(layout: Any, originals: Any, rows: Any, new: list[Any]) -> Any:
    held = masks.paths(originals)
    changed = [path for path, old in layout[1] if not old]
    kept = [
        masks.select(rows, x, held[path] if path in held and held[path].shape == x.shape else 0)
        for path, x in zip(changed, new, strict=True)
    ]
    return _rebuild(layout, originals, kept)


def _returned_presence(given: dict[str, Any], returned: Any) -> dict[str, Any]:
    """The presence entries that `apply` made or changed."""
    if returned is None:
        return {}
    if extra := sorted(set(returned) - set(given)):
        raise ValueError(
            f"apply returned metadata {extra}; inside a batch it may only return {sorted(given)}"
        )
    presence = returned.get("presence") or {}
    before = given["presence"]
    entries = {name: x for name, x in presence.items() if x is not before.get(name)}
    for name, x in entries.items():
        if np.shape(x) != ():
            raise ValueError(f"presence of {name!r} must be one bool, got shape {np.shape(x)}")
    return entries


def _check_declared(declared: tuple[Any, Any], returned: tuple[Any, Any]) -> None:
    for what, expected, got in zip(("data", "state"), declared, returned, strict=True):
        shape = jax.tree.structure(expected, is_leaf=lambda x: x is None)
        if shape != jax.tree.structure(got):
            raise ValueError(
                f"get_output_structure declared {what} {shape}, apply returned "
                f"{jax.tree.structure(got)}"
            )
