"""The record and the batch of records.

`Batch` is a plain pytree. What a row lacks is a masked slot: shapes stay static, no row is dropped,
so no image can meet another row's caption.
"""

import contextlib
import dataclasses
import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from datarax.core.fields import flatten, get_field, has_field, nest

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Element:
    """One record: `data` and `state` are pytrees of arrays without a batch axis.

    `metadata` (key, shard, row, text) stays on the host and is not part of the pytree. A field
    that the record lacks is not in `data`.
    """

    data: Any
    state: Any = dataclasses.field(default_factory=dict)
    metadata: dict[str, Any] | None = None


jax.tree_util.register_dataclass(Element, ["data", "state"], [], ["metadata"])


@dataclasses.dataclass(frozen=True)
class Batch(Generic[T]):
    """Records along axis 0, with the masks that say which rows and which modalities are real.

    Build one with `from_elements` or `from_parts`; the bare constructor checks nothing.

    Attributes:
      data, states: pytrees of arrays `[B, ...]`.
      batch_state: values of the batch as a whole.
      valid_mask: bool `[B]`, which rows are real; `None` means all.
      presence: field name to bool `[B]`; a field without an entry is always there.
      record_index: uint32 `[B]`, or `[B, 2]` as (high, low) words: the identity of each row.
      epoch: uint32 scalar.
      metadata: one dict a row, on the host. A jit boundary drops it to `None`.
    """

    data: Any
    states: Any = dataclasses.field(default_factory=dict)
    batch_state: Any = None
    valid_mask: Any = None
    presence: dict[str, Any] = dataclasses.field(default_factory=dict)
    record_index: Any = None
    epoch: Any = None
    metadata: Sequence[dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        if type(self.data) is list and self.data and isinstance(self.data[0], Element):
            raise TypeError("Batch holds stacked arrays: use Batch.from_elements(elements)")

    @classmethod
    def from_parts(
        cls,
        data: Any,
        states: Any = None,
        *,
        valid_mask: Any = None,
        presence: Mapping[str, Any] | None = None,
        record_index: Any = None,
        epoch: Any = None,
        batch_state: Any = None,
        metadata: Sequence[dict[str, Any]] | None = None,
        validate: bool = True,
    ) -> "Batch":
        """Wrap ready arrays; nothing is copied but the dict of presence.

        Raises:
          TypeError: if a part is no array, or `record_index` or `epoch` is not uint32 (int64 would
            lose its high word on the device: split it with `split_index`).
          ValueError: if the parts do not share one leading axis, naming each with its shape, or a
            presence entry names no field.

        Example:
          >>> batch = Batch.from_parts({"x": np.zeros((4, 2))}, valid_mask=np.arange(4) < 3)
          >>> batch.batch_size, "x" in batch, list(batch)
          (4, True, ['x'])
        """
        if isinstance(epoch, int) and not isinstance(epoch, bool):
            epoch = np.uint32(epoch)
        batch = cls(
            data,
            {} if states is None else states,
            batch_state,
            valid_mask,
            {} if presence is None else dict(presence),
            record_index,
            epoch,
            metadata,
        )
        if validate:
            _check_batch(batch)
        return batch

    @classmethod
    def from_elements(
        cls, elements: Sequence[Element], *, spec: Any = None, optional: Sequence[str] = ()
    ) -> "Batch":
        """Stack records: one `np.stack` a field, one transfer to the device.

        A field that only some records have is filled with zeros where it lacks, and gets a
        presence entry.

        Args:
          elements: at least one record. Each field has one shape and dtype in all that have it.
          spec: a record's spec (`source.element_spec()`): the shapes of fields that no record here
            has. Fields of the spec are then in the batch whatever the records hold.
          optional: fields that always get a presence entry, so that the structure of the batch
            does not depend on which records are in it.

        Raises:
          ValueError: for no records, shapes or dtypes of a field that differ (naming field and
            rows), or different states.

        Example:
          >>> rows = [Element({"a": np.ones(2), "b": np.ones(1)}), Element({"a": np.ones(2)})]
          >>> Batch.from_elements(rows).presence["b"].tolist()
          [True, False]
        """
        data, stacked, presence = stack_elements(elements, spec=spec, optional=optional)
        metadata = [element.metadata for element in elements]
        some = [row or {} for row in metadata] if any(metadata) else None
        data, stacked, presence = jax.device_put((data, stacked, presence))
        return cls(data, stacked, presence=presence, metadata=some)

    @property
    def batch_size(self) -> int:
        """The number of rows, masked ones included."""
        if type(self.data) is dict:
            for x in self.data.values():
                if isinstance(x, jax.Array | np.ndarray):
                    return x.shape[0]
        for part in (self.data, self.states, self.valid_mask, self.record_index):
            for leaf in jax.tree.leaves(part):
                return leaf.shape[0]
        return 0

    def __getitem__(self, field: str) -> Any:
        data = self.data
        return data[field] if type(data) is dict and field in data else get_field(data, field)

    def __contains__(self, field: object) -> bool:
        return isinstance(field, str) and has_field(self.data, field)

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def replace(self, **changes: Any) -> "Batch":
        """A copy with parts replaced.

        Raises:
          TypeError: for a part that a batch does not have.
        """
        return dataclasses.replace(self, **changes)

    def masks(self, *fields: str) -> list[Any]:
        """The masks that speak of the rows, `valid_mask` and the presence of the fields."""
        found = [] if self.valid_mask is None else [self.valid_mask]
        for name, mask in self.presence.items() if fields else ():
            if any(covers(name, field) for field in fields):
                found.append(mask)
        return found

    def where(self, *fields: str) -> Any:
        """Bool `[B]`: the rows that are valid and have the fields; `None` means all."""
        masks = self.masks(*fields)
        return functools.reduce(operator.and_, masks) if masks else None

    def mean(self, field: str) -> jax.Array:
        """The mean of a field over the rows where it is valid and present: a loss's objective.

        Returns:
          At least float32, the shape of one record's field; 0 where no row counts.
        """
        values = jnp.asarray(self[field])
        with jax.numpy_dtype_promotion("standard"):
            values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
        where = self.where(field)
        if where is None:
            return (
                jnp.mean(values, axis=0)
                if values.shape[0]
                else jnp.zeros(values.shape[1:], values.dtype)
            )
        rows = jnp.reshape(where, where.shape + (1,) * (values.ndim - 1))
        total = jnp.sum(jnp.where(rows, values, 0), axis=0)
        return total / jnp.maximum(jnp.sum(where), 1).astype(values.dtype)

    def with_fields(self, fields: dict[str, Any], presence: dict[str, Any]) -> "Batch":
        """A copy with fields and presence entries added or replaced; the cheapest way to one."""
        new = object.__new__(Batch)
        parts = new.__dict__
        parts.update(self.__dict__)
        parts["data"] = {**self.data, **fields}
        if presence:
            parts["presence"] = {**self.presence, **presence}
        return new

    def get_element(self, index: int) -> Element:
        """Row `index` as a record; its masks and host metadata are in its metadata."""
        size = self.batch_size
        if not -size <= index < size:
            raise IndexError(f"row {index} of a batch of {size}")
        row = dict(self.metadata[index]) if self.metadata is not None else {}
        if self.valid_mask is not None:
            row["valid"] = self.valid_mask[index]
        if self.presence:
            row["presence"] = {name: mask[index] for name, mask in self.presence.items()}
        if self.record_index is not None:
            row["record_index"] = self.record_index[index]
        data, state = jax.tree.map(lambda x: x[index], (self.data, self.states))
        return Element(data, state, row or None)


def stack_elements(
    elements: Sequence[Element], *, spec: Any = None, optional: Sequence[str] = ()
) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """Data, states and presence of `Batch.from_elements` as NumPy arrays, still on the host.

    Raises:
      TypeError: if the data of a record is no mapping.
      ValueError: as `Batch.from_elements`.
    """
    if not elements:
        raise ValueError("a batch needs at least one element")
    data, presence = _stack_data([element.data for element in elements], spec, optional)
    states = [element.state for element in elements]
    empty = set(map(type, states)) == {dict} and not any(states)
    return data, {} if empty else _stack_states(states), presence


PARTS = ("data", "states", "batch_state", "valid_mask", "presence", "record_index", "epoch")
jax.tree_util.register_dataclass(Batch, PARTS, [], ["metadata"])


def covers(entry: str, field: str) -> bool:
    """Whether a presence entry speaks of a field: the field itself, or a tree that it is in."""
    return entry == field or field.startswith(entry + ".")


def split_index(index: np.ndarray) -> np.ndarray:
    """Record numbers of 2^32 and more as the uint32 `[B, 2]` that `record_index` takes.

    Example:
      >>> split_index(np.array([2**32 + 5]))
      array([[1, 5]], dtype=uint32)
    """
    wide = np.asarray(index).astype(np.uint64)
    return np.stack([wide >> np.uint64(32), wide & np.uint64(0xFFFFFFFF)], axis=-1).astype(
        np.uint32
    )


def _check_batch(batch: Batch) -> None:
    size = None
    for leaf in jax.tree.leaves((batch.data, batch.states)):
        shape = _shape(leaf)
        if not shape or (size is not None and shape[0] != size):
            raise _misaligned(batch)
        size = shape[0]
    if batch.valid_mask is not None:
        size = _check_mask("valid_mask", batch.valid_mask, size)
    for name, mask in batch.presence.items():
        if not has_field(batch.data, name):
            raise ValueError(f"presence names no field: {name!r}; the batch has {list(batch.data)}")
        size = _check_mask(f"presence of {name!r}", mask, size)
    if batch.record_index is not None:
        _check_uint32("record_index", batch.record_index)
        shape = batch.record_index.shape
        if shape not in ((size,), (size, 2)):
            raise ValueError(f"record_index must be [{size}] or [{size}, 2], got {list(shape)}")
    if batch.epoch is not None:
        _check_uint32("epoch", batch.epoch)
        if np.shape(batch.epoch) != ():
            raise ValueError(f"epoch must be a scalar, got shape {np.shape(batch.epoch)}")
    if batch.metadata is not None and size is not None and len(batch.metadata) != size:
        raise ValueError(f"metadata has {len(batch.metadata)} rows, the batch {size}")


def _shape(leaf: Any) -> tuple[int, ...]:
    if isinstance(leaf, jax.Array | np.ndarray):
        return leaf.shape
    raise TypeError(
        f"a batch holds arrays with the batch on axis 0, got {type(leaf).__name__} {leaf!r}: "
        "stack records with Batch.from_elements, or convert with np.asarray"
    )


def _misaligned(batch: Batch) -> ValueError:
    leaves, _ = jax.tree_util.tree_flatten_with_path((batch.data, batch.states))
    shapes = ", ".join(
        jax.tree_util.keystr(path[1:], simple=True, separator=".") + f" {list(np.shape(leaf))}"
        for path, leaf in leaves
    )
    return ValueError(f"fields must share the batch on axis 0; got {shapes}")


def _check_mask(name: str, mask: Any, size: int | None) -> int:
    if not isinstance(mask, jax.Array | np.ndarray) or mask.dtype != np.bool_:
        raise TypeError(f"{name} must be a bool array, got {describe_dtype(mask)}")
    if mask.ndim != 1 or (size is not None and mask.shape[0] != size):
        raise ValueError(f"{name} must have shape [{size}], got {list(mask.shape)}")
    return mask.shape[0]


def _check_uint32(name: str, value: Any) -> None:
    if not isinstance(value, jax.Array | np.ndarray | np.generic) or value.dtype != np.uint32:
        raise TypeError(
            f"{name} must be uint32, got {describe_dtype(value)}: the device would cut int64 in "
            "silence; convert with astype(np.uint32), or split_index for more than 2^32 records"
        )


def describe_dtype(value: Any) -> str:
    """The dtype of an array, the type's name of anything else: for error messages."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return str(value.dtype)
    return type(value).__name__


def _stack_data(
    rows: list[Any], spec: Any, optional: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    if spec is None and not optional and _alike(rows):
        with contextlib.suppress(KeyError):  # as many fields, but others
            return {name: _stack((name,), [row[name] for row in rows]) for name in rows[0]}, {}
    if not all(isinstance(row, Mapping) for row in rows):
        kinds = sorted({type(row).__name__ for row in rows})
        raise TypeError(f"the data of a record must be a dict of fields, got {kinds}")
    rows = [flatten(row) for row in rows]
    known = {} if spec is None else flatten(spec)
    names = list(dict.fromkeys([*known, *(name for row in rows for name in row)]))
    data: dict[tuple[str, ...], Any] = {}
    presence: dict[str, np.ndarray] = {}
    for name in names:
        column = [row.get(name) for row in rows]
        there = np.fromiter((x is not None for x in column), bool, len(column))
        if not there.all() or ".".join(name) in optional:
            presence[".".join(name)] = there
        data[name] = _stack_some(name, column, known.get(name))
    if extra := set(optional) - {".".join(name) for name in names}:
        raise ValueError(f"optional names no field: {sorted(extra)}; give spec for their shapes")
    return nest(data), presence


def _alike(rows: list[Any]) -> bool:
    """Whether all are flat dicts of as many fields: each look runs over all rows at C's speed."""
    first = rows[0]
    if set(map(type, rows)) != {dict} or set(map(len, rows)) != {len(first)}:
        return False
    return not any(isinstance(x, Mapping) for x in first.values())


def _stack_some(name: tuple[str, ...], column: list[Any], spec: Any) -> np.ndarray:
    """Stack what there is, zeros elsewhere."""
    like = next((x for x in column if x is not None), None)
    if like is None:
        return np.zeros((len(column), *spec.shape), spec.dtype)
    zero = np.zeros_like(np.asarray(like))
    return _stack(name, [zero if x is None else x for x in column])


def _stack(name: tuple[str, ...], column: list[Any]) -> np.ndarray:
    try:
        stacked = np.stack(column)
        dtypes = list(map(operator.attrgetter("dtype"), column))
        if dtypes.count(dtypes[0]) == len(dtypes):
            return stacked
    except (ValueError, AttributeError):
        arrays = [np.asarray(x) for x in column]
        if len({(x.shape, x.dtype) for x in arrays}) == 1:
            return np.stack(arrays)  # numbers and lists, not arrays
    rows = [f"row {i} {np.shape(x)} {np.asarray(x).dtype}" for i, x in enumerate(column)]
    raise ValueError(f"field {'.'.join(name)!r} differs between records: {', '.join(rows[:8])}")


def _stack_states(states: list[Any]) -> Any:
    structures = {jax.tree.structure(state) for state in states}
    if len(structures) > 1:
        raise ValueError(f"records carry different states: {sorted(map(str, structures))}")
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *states)
