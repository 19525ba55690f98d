"""The rows of one batch, filled in any order and from any thread."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from datarax.core.data_source import DataSourceModule
from datarax.core.element_batch import Batch, Element, covers, split_index
from datarax.core.fields import Path, flatten, nest
from datarax.sources.record import Fault, Lost, RecordError
from datarax.sources.traits import (
    Columnar,
    ReadInto,
    bulk_reader,
    columnar,
    optional_fields,
    padded_lengths,
)


@dataclasses.dataclass(frozen=True)
class Rows:
    """A batch under way.

    Attributes:
      records: record numbers int64 [m]; the rows from m on are padding.
      data: [B, ...] by path, zeros in the padding, anything in what is yet to be filled.
      presence: False [B] for each optional field.
      valid: False [B].
      metadata: one dict a row.
      faults: by row, why it is not valid.
      skipped: rows left out by choice.
    """

    records: np.ndarray
    data: dict[Path, np.ndarray]
    presence: dict[str, np.ndarray]
    valid: np.ndarray
    metadata: list[dict[str, Any]]
    faults: dict[int, Fault]
    skipped: set[int]


class Assembler:
    """Makes batches of a source's records, of the same shapes whatever can be read.

    Args:
      source: where the records are.
      optional: fields that a record may lack; `None` is what the source says, all if it does not.
      fit_lengths: whether a batch has the shortest of the source's `padded_lengths` that holds it.

    Raises:
      ValueError: if `optional` names no field, or lengths are of a field that cannot have them.
    """

    def __init__(
        self, source: DataSourceModule, *, optional: Sequence[str] | None, fit_lengths: bool = False
    ) -> None:
        self.source = source
        self.spec: dict[Path, jax.ShapeDtypeStruct] = flatten(source.element_spec())
        names = optional_fields(source) if optional is None else tuple(optional)
        fields = [".".join(path) for path in self.spec]
        if extra := [n for n in names if not any(covers(n, field) for field in fields)]:
            raise ValueError(f"optional names no field: {extra}; there are {fields}")
        self.optional = tuple(f for f in fields if any(covers(name, f) for name in names))
        self._expected = [
            (path, ".".join(path), s.shape, np.dtype(s.dtype)) for path, s in self.spec.items()
        ]
        self._tops: dict[str, Path] = {path[0]: path for path in self.spec if len(path) == 1}
        self.lengths = _checked_lengths(source, self.spec) if fit_lengths else {}
        self._paths = {name: path for path, name, _, _ in self._expected}
        self._columnar, self._read_into = columnar(source), bulk_reader(source)

    def empty(self, records: np.ndarray, size: int) -> Rows:
        """Rows to be filled, and padding; none of them valid."""
        data = {path: np.empty((size, *s.shape), s.dtype) for path, s in self.spec.items()}
        for array in data.values():
            array[len(records) :] = 0
        return Rows(
            records,
            data,
            {name: np.zeros(size, bool) for name in self.optional},
            np.zeros(size, bool),
            [{} for _ in range(size)],
            {},
            set(),
        )

    def fill(self, rows: Rows, start: int, stop: int) -> None:
        """Read the records of some rows. A record that cannot be read leaves zeros and its fault.

        Raises:
          ValueError: if a record does not fit the source's own spec.
          OSError: if a file cannot be read.
        """
        if self._columnar is not None:
            self._take(self._columnar, rows, slice(start, stop))
        elif self._read_into is not None:
            self._fill_at_once(self._read_into, rows, start, stop)
        else:
            self._fill_one_by_one(rows, start, stop)

    def _fill_at_once(self, read_into: ReadInto, rows: Rows, start: int, stop: int) -> None:
        part = slice(start, stop)
        numbers = rows.records[part].tolist()
        columns = {name: rows.data[path][part] for path, name, _, _ in self._expected}
        try:
            reading = read_into(numbers, columns)
        except Exception as error:
            error.add_note(f"while reading records {numbers} of {type(self.source).__name__}")
            raise
        presence = {name: there[part] for name, there in rows.presence.items()}
        masks = [rows.valid[part], *presence.values()]
        for mask in masks:
            mask[:] = True
        rows.metadata[part] = reading.metadata
        lost = reading.lost
        for place, names in reading.lacking.items():
            for name in names:
                columns[name][place] = 0
                if name in presence:
                    presence[name][place] = False
                elif place not in lost:
                    fault = _lacking(reading.metadata[place], name, numbers[place])
                    lost[place] = Lost(fault, is_skipped=False)
        for place, why in lost.items():
            _note_lost(rows, start + place, why)
            for array in (*masks, *columns.values()):
                array[place] = 0

    def _fill_one_by_one(self, rows: Rows, start: int, stop: int) -> None:
        numbers = rows.records[start:stop].tolist()
        for row, number in enumerate(numbers, start):
            try:
                self._write(rows, row, self.source[number], number)
            except RecordError as error:
                _note_lost(rows, row, Lost.of(error))
                for column in rows.data.values():
                    column[row] = 0
            except Exception as error:
                error.add_note(f"while reading record {number} of {type(self.source).__name__}")
                raise

    def _write(self, rows: Rows, row: int, element: Element, number: int) -> None:
        values = self._checked(element, number)
        for path, column in rows.data.items():  # nothing is written before all is checked
            column[row] = values.get(path, 0)
        for name, there in rows.presence.items():
            there[row] = self._paths[name] in values
        if element.metadata:
            rows.metadata[row] = dict(element.metadata)
        rows.valid[row] = True

    def _checked(self, element: Element, number: int) -> dict[Path, np.ndarray]:
        data = element.data
        if not isinstance(data, Mapping):
            raise TypeError(f"a record's data must be a dict, got {type(data).__name__}")
        if element.state != {} and jax.tree.leaves(element.state):
            raise ValueError("a pipeline carries no states: put them into the records' data")
        if data.keys() <= self._tops.keys():
            flat: dict[Path, Any] = {self._tops[name]: x for name, x in data.items()}
        else:
            flat = {path: x for path, x in flatten(data).items() if x is not None}
            if extra := [".".join(path) for path in flat if path not in self.spec]:
                raise ValueError(f"record {number} has {extra}, which element_spec does not name")
        values: dict[Path, np.ndarray] = {}
        for path, name, shape, dtype in self._expected:
            if flat.get(path) is None:
                if name not in self.optional:
                    raise RecordError(_lacking(element.metadata or {}, name, number))
                continue
            value = values[path] = np.asarray(flat[path])
            if value.shape != shape or value.dtype != dtype:
                raise ValueError(
                    f"record {number}: field {name!r} is {value.dtype}{list(value.shape)}, "
                    f"element_spec says {dtype}{list(shape)}"
                )
        return values

    def _take(self, source: Columnar, rows: Rows, part: slice) -> None:
        batch = source.take(rows.records[part])
        found = flatten(batch.data)
        for path, column in rows.data.items():
            column[part] = found[path]
        for name, there in rows.presence.items():
            there[part] = batch.presence.get(name, True)
        if batch.metadata is not None:
            rows.metadata[part] = [dict(row) for row in batch.metadata]
        rows.valid[part] = True

    def batch(self, rows: Rows, *, epoch: int, wide: bool) -> Batch:
        """The filled rows, cut to the length that they need. Padding has record number 0."""
        numbers = np.zeros(len(rows.valid), np.int64)
        numbers[: len(rows.records)] = rows.records
        return Batch.from_parts(
            nest(self._fitted(rows.data)),
            valid_mask=rows.valid,
            presence=rows.presence,
            record_index=split_index(numbers) if wide else numbers.astype(np.uint32),
            epoch=np.uint32(epoch),
            metadata=rows.metadata if any(rows.metadata) else None,
            validate=False,
        )

    def _fitted(self, data: dict[Path, np.ndarray]) -> dict[Path, np.ndarray]:
        fitted = dict(data)
        for path, lengths in self.lengths.items():
            mask = _mask_of(path)
            there = np.flatnonzero(data[mask].any(axis=0))
            needed = there[-1] + 1 if len(there) else 0
            length = next(n for n in lengths if n >= needed)
            if length < lengths[-1]:
                fitted |= {p: np.ascontiguousarray(data[p][:, :length]) for p in (path, mask)}
        return fitted


def _checked_lengths(
    source: DataSourceModule, spec: Mapping[Path, jax.ShapeDtypeStruct]
) -> dict[Path, tuple[int, ...]]:
    found = {}
    by_name = {".".join(path): path for path in spec}
    for name, lengths in padded_lengths(source).items():
        if lengths[:1] < (1,) or list(lengths) != sorted(set(lengths)):
            raise ValueError(f"padded_lengths: {name!r} must rise from 1, got {lengths}")
        shapes = [spec[by_name[n]].shape if n in by_name else () for n in (name, f"{name}_mask")]
        if any(shape[:1] != lengths[-1:] for shape in shapes) or len(shapes[1]) != 1:
            raise ValueError(
                f"padded_lengths: {name!r} and its mask must have the length of the last of "
                f"{lengths} on their first axis, the mask no other axis, got shapes {shapes}"
            )
        found[by_name[name]] = lengths
    return found


def _mask_of(path: Path) -> Path:
    return (*path[:-1], f"{path[-1]}_mask")


def _note_lost(rows: Rows, row: int, lost: Lost) -> None:
    if lost.is_skipped:
        rows.skipped.add(row)
        rows.metadata[row] = {"skipped": str(lost.fault)}
    else:
        rows.faults[row] = lost.fault
        rows.metadata[row] = {"fault": str(lost.fault)}


def _lacking(about: Mapping[str, Any], name: str, number: int) -> Fault:
    return Fault(
        str(about.get("shard", "")),
        key=str(about.get("key", number)),
        row=about.get("row", number),
        field=name,
        reason="the record lacks the field",
    )
