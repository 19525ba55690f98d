"""Records of many files, decoded field by field."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from datarax.core.config import DataraxModuleConfig
from datarax.core.data_source import DataSourceModule
from datarax.core.element_batch import Element
from datarax.sources.fields import Fields
from datarax.sources.limits import Limits
from datarax.sources.record import (
    Fault,
    FieldError,
    FieldSkipped,
    Lost,
    RawRecord,
    RecordError,
    RecordSkipped,
)
from datarax.sources.shard import Shard, Shards
from datarax.sources.traits import Reading

UNDECODED_BYTES = 2**24  # of records that are read before the first of them is decoded


class ShardedSource(DataSourceModule):
    """The records of some shards, in the shards' order, as `fields` reads them.

    A record's metadata are its `key`, `shard` and `row`. What a shard has lost as a whole is in
    `faults`. A pipeline calls `read_into`, or `__getitem__` where a class below changes that alone.

    Args:
      shards: the files.
      fields: what a record's parts become; `None` infers it from the first records.
      limits: on what the parts may ask for; `None` leaves those of `fields`, or the usual ones.

    Raises:
      ValueError: if there is no record at all, or no field can be inferred.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        *,
        fields: Fields | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(DataraxModuleConfig())
        self.shards = Shards(shards)
        if len(self.shards) == 0:
            lost = "".join(f"\n  {fault}" for fault in self.shards.faults)
            names = ", ".join(shard.name for shard in self.shards.shards)
            raise ValueError(f"there are no records in {names or 'no files'}{lost}")
        if fields is None:
            fields = Fields.infer(self.shards, limits=limits)
        self.fields = fields if limits is None else dataclasses.replace(fields, limits=limits)

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> Element:
        """Record `index`, the same at every call.

        Raises:
          IndexError: if there is no such record.
          RecordError: if it cannot be read, or lacks a field that it must have.
          RecordSkipped: if it lacks a field without which it is to be left out.
          OSError: if a file cannot be read.
        """
        shard, row = self.shards.locate(index + len(self) if index < 0 else index)
        raw = shard.read(row)
        try:
            data = self.fields.read(raw)
        except FieldError as error:
            fault = Fault(shard.name, raw.key, row, error.field, error.reason)
            kind = RecordSkipped if isinstance(error, FieldSkipped) else RecordError
            raise kind(fault) from error
        return Element(data, metadata=_metadata(shard.name, raw.key, row))

    def read_into(self, numbers: Sequence[int], columns: Mapping[str, np.ndarray]) -> Reading:
        """Read records into the rows, zeros, of arrays by field: what `self[number]` has or raises.

        Raises:
          IndexError: if there is no such record.
          ValueError: if a decoder makes something else than its spec says.
          OSError: if a file cannot be read.
        """
        count, locate = len(self), self.shards.locate
        places = [locate(number + count if number < 0 else number) for number in numbers]
        reading = Reading([{} for _ in places], {}, {})
        rows = iter(range(len(places)))
        while raws := self._read_some(places, rows, lost=reading.lost):
            self._decode(raws, places, columns, reading)
            raws.clear()  # the next are not held beside these
        return reading

    def _decode(
        self,
        raws: Mapping[int, RawRecord],
        places: Sequence[tuple[Shard, int]],
        columns: Mapping[str, np.ndarray],
        reading: Reading,
    ) -> None:
        lacking, lost = self.fields.read_into(raws, columns)
        for row, raw in raws.items():
            shard, inside = places[row]
            if row in lost:
                field, reason, is_skipped = lost[row]
                fault = Fault(shard.name, raw.key, inside, field, reason)
                reading.lost[row] = Lost(fault, is_skipped)
            else:
                reading.metadata[row] = _metadata(shard.name, raw.key, inside)
        reading.lacking.update(lacking)

    def _read_some(
        self, places: Sequence[tuple[Shard, int]], rows: Iterator[int], *, lost: dict[int, Lost]
    ) -> dict[int, RawRecord]:
        """The next records that can be read, as many as are held in memory undecoded."""
        raws: dict[int, RawRecord] = {}
        held = 0
        for row in rows:
            shard, inside = places[row]
            try:
                raws[row] = raw = shard.read(inside)
            except RecordError as error:
                lost[row] = Lost.of(error)
                continue
            for part in raw.parts.values():
                held += len(part) if type(part) is bytes else _size(part)
            if held > UNDECODED_BYTES:
                break
        return raws

    @property
    def faults(self) -> list[Fault]:
        """What the shards have lost as a whole."""
        return self.shards.faults

    @property
    def optional(self) -> tuple[str, ...]:
        """The fields that a record may lack."""
        return self.fields.optional

    @property
    def padded_lengths(self) -> dict[str, tuple[int, ...]]:
        """The lengths that a batch may have, of the fields that are padded to one of several."""
        return self.fields.padded_lengths

    def element_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of every field, the optional ones included."""
        return self.fields.spec()

    def fingerprint(self) -> str:
        """16 hex digits that change with any shard, their order, and the fields."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(f"{self.shards.fingerprint()} {self.fields.fingerprint()}".encode())
        return digest.hexdigest()


def _size(part: Any) -> int:
    """About how many bytes a part of a record takes."""
    if isinstance(part, bytes | str):
        return len(part)
    if isinstance(part, np.ndarray):
        return part.nbytes
    if isinstance(part, Mapping):
        return sum(map(_size, part.values()))
    if not isinstance(part, list | tuple) or not part:
        return 0
    # An element for all: it is only a bound, and long lists are of numbers.
    return len(part) * max(32, _size(part[0]))


def _metadata(shard: str, key: str, row: int) -> dict[str, Any]:
    return {"key": key, "shard": shard, "row": row}


def fields_of(fields: Any) -> Fields | None:
    """Fields as they are, from a mapping as in a TOML file, or `None` to infer them."""
    return fields if fields is None or isinstance(fields, Fields) else Fields.from_mapping(fields)
