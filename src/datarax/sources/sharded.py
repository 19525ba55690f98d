"""Records of many files, decoded field by field."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
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
    RecordError,
    RecordSkipped,
)
from datarax.sources.shard import Shard, Shards
from datarax.sources.traits import Reading


class ShardedSource(DataSourceModule):
    """The records of some shards, in the shards' order, as `fields` reads them.

    A record's metadata are its `key`, `shard` and `row`. What a shard has lost as a whole is in
    `faults`. A pipeline calls `read_into`, or `__getitem__` where a class below changes that alone.

    Args:
      shards: the files.
      fields: what a record's parts become; `None` infers it from a sample.
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
        return Element(data, metadata={"key": raw.key, "shard": shard.name, "row": row})

    def read_into(self, numbers: Sequence[int], columns: Mapping[str, np.ndarray]) -> Reading:
        """Read records into the rows of arrays by field: what `self[number]` has or raises.

        Raises:
          IndexError: if there is no such record.
          ValueError: if a decoder makes something else than its spec says.
          OSError: if a file cannot be read.
        """
        count = len(self)
        rows = [number + count if number < 0 else number for number in numbers]
        write = self.fields.writer(columns)
        keys: list[str | None] = []
        lacking: dict[int, list[str]] = {}
        lost: dict[int, Lost] = {}
        for place, (shard, row) in enumerate(self.shards.places(rows)):
            key = None
            try:
                raw = shard.read(row)
                if lacks := write(place, raw):
                    lacking[place] = lacks
                key = raw.key
            except RecordError as error:  # the error itself would keep the columns in memory
                lost[place] = Lost.of(error)
            except FieldError as error:
                fault = Fault(shard.name, raw.key, row, error.field, error.reason)
                lost[place] = Lost(fault, isinstance(error, FieldSkipped))
            keys.append(key)
        # all at once: between two pictures each takes longer to make
        metadata = [
            {} if key is None else {"key": key, "shard": shard.name, "row": row}
            for key, (shard, row) in zip(keys, self.shards.places(rows), strict=True)
        ]
        return Reading(metadata, lacking, lost)

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


def fields_of(fields: Any) -> Fields | None:
    """Fields as they are, from a mapping as in a TOML file, or `None` to infer them."""
    return fields if fields is None or isinstance(fields, Fields) else Fields.from_mapping(fields)
