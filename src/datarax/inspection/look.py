"""All that can be said of one record."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from datarax.inspection.measures import Measured, measure, size_of
from datarax.sources.fields import Decoder, Field, Fields
from datarax.sources.find_part import find_part
from datarax.sources.record import (
    DecodeError,
    Fault,
    FieldError,
    FieldSkipped,
    RawRecord,
    RecordError,
)
from datarax.sources.shard import Shards


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """A field of one record that can be read; `measured` is `None` of a default."""

    decoder: Decoder
    array: np.ndarray
    measured: Measured | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Looked:
    """One record.

    Attributes:
      place: in the source.
      key, shard, row: where it is; the key of a record that cannot be read may be empty.
      part_bytes: of all its bytes and texts.
      present: the fields that it has a part for, also one that cannot be decoded, and the part's
        bytes, if it is bytes or text.
      found: the fields that can be read.
      faults: what is wrong with it: each field is read, whatever is wrong with others.
      is_skipped: whether it is left out for want of a field; nothing is wrong with it then.
    """

    place: int
    key: str
    shard: str
    row: int
    part_bytes: int = 0
    present: Mapping[str, int | None] = dataclasses.field(default_factory=dict)
    found: Mapping[str, Found] = dataclasses.field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    is_skipped: bool = False


class Look:
    """Reads records as `fields` does, but every field on its own. Safe to call from threads.

    Args:
      shards: where they are.
      fields: what they are made of.
    """

    def __init__(self, shards: Shards, fields: Fields) -> None:
        self.shards = shards
        self.fields = fields
        self._alone = {name: Fields({name: f}, fields.limits) for name, f in fields.fields.items()}

    def __call__(self, place: int) -> Looked:
        """The record at `place`.

        Raises:
          OSError: if the file cannot be read.
        """
        shard, row = self.shards.locate(place)
        try:
            raw = shard.read(row)
        except RecordError as error:
            fault = error.fault
            return Looked(place=place, key=fault.key, shard=shard.name, row=row, faults=(fault,))
        present: dict[str, int | None] = {}
        found: dict[str, Found] = {}
        errors: list[FieldError] = []
        parsed: dict[str, Any] = {}
        for name, field in self.fields.fields.items():
            try:
                part = self._part(name, field, raw, parsed=parsed)
                if part is not None:
                    present[name] = size_of(part)
                one = self._found(name, field, raw, part=part)
            except FieldError as error:
                errors.append(error)
            else:
                found.update({} if one is None else {name: one})
        is_skipped = bool(errors) and isinstance(errors[0], FieldSkipped)  # none behind it is read
        wrong = () if is_skipped else tuple(e for e in errors if not isinstance(e, FieldSkipped))
        return Looked(
            place=place,
            key=raw.key,
            shard=shard.name,
            row=row,
            part_bytes=sum(size_of(part) or 0 for part in raw.parts.values()),
            present=present,
            found=found,
            faults=tuple(Fault(shard.name, raw.key, row, e.field, e.reason) for e in wrong),
            is_skipped=is_skipped,
        )

    def _part(self, name: str, field: Field, raw: RawRecord, *, parsed: dict[str, Any]) -> Any:
        try:
            return find_part(raw.parts, field.parts, parsed=parsed, limits=self.fields.limits)
        except DecodeError as error:
            raise FieldError(name, str(error)) from error

    def _found(self, name: str, field: Field, raw: RawRecord, *, part: Any) -> Found | None:
        decoder = field.decoder
        if part is None:
            made = self._alone[name].read(raw)  # a default, nothing, or an error
            return Found(decoder=decoder, array=made[name], measured=None) if made else None
        try:
            arrays = decoder.decode(part, limits=self.fields.limits)
        except DecodeError as error:
            raise FieldError(name, str(error)) from error
        measured = measure(decoder, part, arrays)
        return Found(decoder=decoder, array=arrays[0], measured=measured)
