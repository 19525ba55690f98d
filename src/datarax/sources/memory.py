"""Records that are in memory already, as stacked arrays."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from datarax.core.config import DataraxModuleConfig
from datarax.core.data_source import DataSourceModule
from datarax.core.element_batch import Batch, Element, stack_elements


@dataclasses.dataclass(frozen=True, eq=False)
class Columns:
    """Fields as arrays `[n, ...]`, and bool `[n]` for each field that some records lack."""

    fields: dict[str, np.ndarray]
    presence: dict[str, np.ndarray]
    metadata: tuple[dict[str, Any], ...] | None

    @property
    def size(self) -> int:
        """The number of records."""
        return len(next(iter(self.fields.values())))


class MemorySource(DataSourceModule):
    """Records of flat fields, held as one stacked array a field.

    Args:
      records: elements (a field that some lack is an optional modality), or a dict of arrays
        `[n, ...]`.
      presence: for a dict of arrays, bool `[n]` for each field that some records lack.
      metadata: for a dict of arrays, one dict a record.

    Raises:
      ValueError: for no records or fields, or parts of different lengths, naming them.

    Example:
      >>> source = MemorySource({"x": np.arange(6.0).reshape(3, 2)})
      >>> len(source), source[2].data["x"].tolist()
      (3, [4.0, 5.0])
    """

    def __init__(
        self,
        records: Iterable[Element] | Mapping[str, Any],
        *,
        presence: Mapping[str, Any] | None = None,
        metadata: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(DataraxModuleConfig())
        if isinstance(records, Mapping):
            self.columns = _from_arrays(records, presence=presence or {}, metadata=metadata)
        elif presence is None and metadata is None:
            self.columns = _from_elements(list(records))
        else:
            raise ValueError("presence and metadata go with a dict of arrays; elements hold theirs")

    def __len__(self) -> int:
        return self.columns.size

    def __getitem__(self, index: int) -> Element:
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of a source of {len(self)}")
        columns = self.columns
        here = {
            name: column[index]
            for name, column in columns.fields.items()
            if name not in columns.presence or columns.presence[name][index]
        }
        return Element(here, metadata=columns.metadata[index] if columns.metadata else None)

    def element_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of every field, the optional ones included."""
        return {
            name: jax.ShapeDtypeStruct(column.shape[1:], column.dtype)
            for name, column in self.columns.fields.items()
        }

    def take(self, rows: np.ndarray) -> Batch:
        """Records by number as a batch of NumPy arrays; its structure is the same for any rows."""
        columns = self.columns
        return Batch.from_parts(
            {name: column[rows] for name, column in columns.fields.items()},
            presence={name: mask[rows] for name, mask in columns.presence.items()},
            metadata=[columns.metadata[row] for row in rows] if columns.metadata else None,
            validate=False,
        )

    def fingerprint(self) -> str:
        """16 hex digits that change with any value of any record (metadata aside)."""
        digest = hashlib.blake2b(digest_size=8)
        for part in (self.columns.fields, self.columns.presence):
            for name, column in sorted(part.items()):
                digest.update(f"{name} {column.shape} {column.dtype};".encode())
                digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()


def _from_arrays(
    fields: Mapping[str, Any],
    *,
    presence: Mapping[str, Any],
    metadata: Sequence[dict[str, Any]] | None,
) -> Columns:
    columns = Columns(
        {name: np.asarray(column) for name, column in fields.items()},
        {name: np.asarray(mask, bool) for name, mask in presence.items()},
        None if metadata is None else tuple(metadata),
    )
    if extra := sorted(set(presence) - set(fields)):
        raise ValueError(f"presence names no field: {extra}; there are {sorted(fields)}")
    lengths = {name: column.shape[:1] for name, column in columns.fields.items()}
    lengths |= {f"presence of {name}": mask.shape for name, mask in columns.presence.items()}
    if metadata is not None:
        lengths["metadata"] = (len(metadata),)
    if len(set(lengths.values())) != 1 or set(lengths.values()) <= {(), (0,)}:
        raise ValueError(f"a source needs fields of one length, at least 1, got {lengths}")
    return columns


def _from_elements(elements: list[Element]) -> Columns:
    data, states, presence = stack_elements(elements)
    if jax.tree.leaves(states):
        raise ValueError("a memory source holds no states: put them into the data of its records")
    if nested := sorted(name for name, value in data.items() if isinstance(value, Mapping)):
        raise ValueError(f"a memory source holds flat fields, got nested {nested}")
    metadata = [element.metadata or {} for element in elements]
    return _from_arrays(data, presence=presence, metadata=metadata if any(metadata) else None)
