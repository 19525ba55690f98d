"""What is in some records: which fields, how large, and what is wrong with them."""

import collections
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from datarax.inspection.field_tally import FieldSurvey, FieldTally
from datarax.inspection.measures import Measured, measure, size_of, text_of
from datarax.sources.decode_image import ImageDecoder
from datarax.sources.fields import Decoder, Fields
from datarax.sources.find_part import find_part
from datarax.sources.record import (
    DecodeError,
    Fault,
    FieldError,
    FieldSkipped,
    RawRecord,
    RecordError,
)
from datarax.sources.sharded import ShardedSource

SAMPLES = 24
FIRST = 10  # faults that are kept whole
REASONS = 1000  # that are counted apart
_OTHER = "other reasons"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """A record to look at.

    Attributes:
      key, shard, row: where it is.
      pictures: its image fields as they are decoded, uint8.
      texts: its text fields, whole.
      values: of its other fields a few words: "2.5 seconds".
    """

    key: str
    shard: str
    row: int
    pictures: Mapping[str, np.ndarray]
    texts: Mapping[str, str]
    values: Mapping[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reason:
    """What is wrong with so many fields of records; reasons that differ in numbers are one."""

    field: str
    example: str
    count: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Survey:
    """What is in some records.

    Attributes:
      shards: names of the files.
      records: how many there are in all.
      looked_at: how many of these were looked at.
      good: how many of these can be read.
      bad: how many cannot.
      skipped: how many are left out, since they lack a field with `missing = "skip"`.
      part_bytes: of all bytes and texts in the records that were looked at.
      toml: the fields, as in a TOML file under `[fields]`.
      fields: of each field, in order.
      reasons: what is wrong, most frequent first. A record with several bad fields is in several.
      first_bad: the first of them.
      lost: what the shards have lost as a whole.
      samples: at most 24 good records, evenly spread.
    """

    shards: tuple[str, ...]
    records: int
    looked_at: int
    good: int
    bad: int
    skipped: int
    part_bytes: int
    toml: str
    fields: tuple[FieldSurvey, ...]
    reasons: tuple[Reason, ...]
    first_bad: tuple[Fault, ...]
    lost: tuple[Fault, ...]
    samples: tuple[Sample, ...]

    @property
    def is_sampled(self) -> bool:
        """Whether a median is that of a sample."""
        return any(spread.is_sampled for field in self.fields for spread in field.sizes.values())


def survey(
    source: ShardedSource, *, limit: int | None = None, rows: Sequence[int] | None = None
) -> Survey:
    """Read records once, and say what is in them.

    Args:
      source: the records.
      limit: look at so many only, the first.
      rows: look at these only, in their order; `None` is all.

    Raises:
      ValueError: if there are none to look at.
      OSError: if a file cannot be read.
    """
    chosen = range(len(source)) if rows is None else rows
    chosen = chosen if limit is None else chosen[:limit]
    if len(chosen) == 0:
        raise ValueError(f"there are no records to look at: limit is {limit}, rows are {rows}")
    count = _Count(source, len(chosen))
    for place in tqdm(chosen, disable=None, unit=" records"):
        count.add(place)
    return count.survey()


@dataclasses.dataclass(frozen=True)
class Found:
    """A field of one record; `measured` is `None` of a default."""

    decoder: Decoder
    array: np.ndarray
    measured: Measured | None


class _Count:
    """What is known of the records so far."""

    def __init__(self, source: ShardedSource, size: int) -> None:
        self.source = source
        self.fields = source.fields
        self.tallies = [FieldTally(name, field) for name, field in self.fields.fields.items()]
        self.alone = {n: Fields({n: f}, self.fields.limits) for n, f in self.fields.fields.items()}
        self.wanted = np.linspace(0, size - 1, min(size, SAMPLES)).round().astype(int).tolist()
        self.looked_at = self.good = self.bad = self.skipped = self.part_bytes = 0
        self.reasons: collections.Counter[tuple[str, str]] = collections.Counter()
        self.examples: dict[tuple[str, str], str] = {}
        self.first_bad: list[Fault] = []
        self.samples: list[Sample] = []

    def add(self, place: int) -> None:
        """The record at `place` of the source."""
        shard, row = self.source.shards.locate(place)
        self.looked_at += 1
        try:
            raw = shard.read(row)
        except RecordError as error:
            self.bad += 1
            self._add_fault(error.fault)
            return
        self.part_bytes += sum(size_of(part) or 0 for part in raw.parts.values())
        found, errors = self._read(raw, place)
        if not errors:
            self.good += 1
            if len(self.samples) < len(self.wanted) and self._is_due():
                self.samples.append(_sample(raw.key, shard.name, row, found=found))
        elif isinstance(errors[0], FieldSkipped):  # nothing behind it is read
            self.skipped += 1
        else:
            self.bad += 1
            for wrong in errors:
                self._add_fault(Fault(shard.name, raw.key, row, wrong.field, wrong.reason))

    def survey(self) -> Survey:
        """Of all so far."""
        return Survey(
            shards=tuple(shard.name for shard in self.source.shards.shards),
            records=len(self.source),
            looked_at=self.looked_at,
            good=self.good,
            bad=self.bad,
            skipped=self.skipped,
            part_bytes=self.part_bytes,
            toml=str(self.fields),
            fields=tuple(self._with_texts(tally) for tally in self.tallies),
            reasons=tuple(
                Reason(field=key[0], example=self.examples[key], count=count)
                for key, count in self.reasons.most_common()
            ),
            first_bad=tuple(self.first_bad),
            lost=tuple(self.source.faults),
            samples=tuple(self.samples),
        )

    def _is_due(self) -> bool:
        return self.looked_at > self.wanted[len(self.samples)]

    def _read(self, raw: RawRecord, place: int) -> tuple[dict[str, Found], list[FieldError]]:
        """Every field of a record on its own, so that all that is wrong with it is known."""
        found: dict[str, Found] = {}
        errors: list[FieldError] = []
        parsed: dict[str, Any] = {}
        for tally in self.tallies:
            try:
                one = self._read_field(tally, raw, parsed=parsed, place=place)
            except FieldError as error:
                errors.append(error)
                continue
            if one is not None:
                found[tally.name] = one
        return found, errors

    def _read_field(
        self, tally: FieldTally, raw: RawRecord, *, parsed: dict[str, Any], place: int
    ) -> Found | None:
        name, field, limits = tally.name, tally.field, self.fields.limits
        try:
            part = find_part(raw.parts, field.parts, parsed=parsed, limits=limits)
            if part is None:
                made = self.alone[name].read(raw)  # a default, nothing, or an error
                return Found(field.decoder, made[name], None) if name in made else None
            tally.add_part(part)
            arrays = field.decoder.decode(part, limits=limits)
        except DecodeError as error:
            raise FieldError(name, str(error)) from error
        measured = measure(field.decoder, part, arrays)
        tally.add_measured(measured, place)
        return Found(field.decoder, arrays[0], measured)

    def _add_fault(self, fault: Fault) -> None:
        if len(self.first_bad) < FIRST:
            self.first_bad.append(fault)
        key = fault.field, re.sub(r"[0-9]+", "0", fault.reason)
        if key not in self.reasons and len(self.reasons) >= REASONS:
            key = "", _OTHER
        self.examples.setdefault(key, _OTHER if key[1] == _OTHER else fault.reason)
        self.reasons[key] += 1

    def _with_texts(self, tally: FieldTally) -> FieldSurvey:
        """With its frequent texts, which are read again: only their places were kept."""
        made = tally.survey()
        if made.duplicates is None:
            return made
        texts = []
        for count, place in made.duplicates.frequent:
            raw = self.source.shards.read(place)
            part = find_part(raw.parts, tally.field.parts, parsed={}, limits=self.fields.limits)
            texts.append((count, text_of(part)))
        return dataclasses.replace(made, frequent=tuple(texts))


def _sample(key: str, shard: str, row: int, *, found: Mapping[str, Found]) -> Sample:
    pictures: dict[str, np.ndarray] = {}
    texts: dict[str, str] = {}
    values: dict[str, str] = {}
    for name, one in found.items():
        if isinstance(one.decoder, ImageDecoder):
            pictures[name] = one.array
        elif one.measured is not None and one.measured.text is not None:
            texts[name] = one.measured.text
        else:
            values[name] = _value(one)
    return Sample(key=key, shard=shard, row=row, pictures=pictures, texts=texts, values=values)


def _value(found: Found) -> str:
    if found.measured is None:
        return "default"
    for name, size in found.measured.sizes.items():
        return f"{size:g}" if name == "value" else f"{size:.3g} {name}"
    return f"{found.array.dtype} {list(found.array.shape)}"
