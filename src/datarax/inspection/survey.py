"""What is in some records: which fields, how large, and what is wrong with them."""

import collections
import dataclasses
import functools
import os
import re
from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from datarax.inspection.field_tally import FieldSurvey, FieldTally
from datarax.inspection.look import Found, Look, Looked
from datarax.inspection.measures import text_of
from datarax.pipeline.prefetch import Job, Prefetch
from datarax.sources.decode_image import ImageDecoder
from datarax.sources.find_part import find_part
from datarax.sources.record import Fault
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
    source: ShardedSource,
    *,
    limit: int | None = None,
    rows: Sequence[int] | None = None,
    threads: int | None = None,
) -> Survey:
    """Read records once, and say what is in them.

    Args:
      source: the records.
      limit: look at so many only, the first.
      rows: look at these only, in their order; `None` is all.
      threads: that read and decode; 0 is none beside this one; `None` is one for each processor, up
        to 8. The survey is the same with any.

    Raises:
      ValueError: if there are none to look at.
      OSError: if a file cannot be read.
    """
    chosen = range(len(source)) if rows is None else rows
    chosen = chosen if limit is None else chosen[:limit]
    if len(chosen) == 0:
        raise ValueError(f"there are no records to look at: limit is {limit}, rows are {rows}")
    threads = min(8, os.cpu_count() or 1) if threads is None else threads
    count = _Count(source, len(chosen))
    look = Look(source.shards, source.fields)
    jobs = (Job([_nothing], functools.partial(look, place)) for place in chosen)
    with Prefetch(jobs, threads=threads, ahead=4 * threads + 1) as records:
        for looked in tqdm(records, total=len(chosen), disable=None, unit=" records"):
            count.add(looked)
    return count.survey()


class _Count:
    """What is known of the records so far."""

    def __init__(self, source: ShardedSource, size: int) -> None:
        self.source = source
        self.tallies = [FieldTally(name, field) for name, field in source.fields.fields.items()]
        self.wanted = np.linspace(0, size - 1, min(size, SAMPLES)).round().astype(int).tolist()
        self.looked_at = self.good = self.bad = self.skipped = self.part_bytes = 0
        self.reasons: collections.Counter[tuple[str, str]] = collections.Counter()
        self.examples: dict[tuple[str, str], str] = {}
        self.first_bad: list[Fault] = []
        self.samples: list[Sample] = []

    def add(self, looked: Looked) -> None:
        """One more record."""
        self.looked_at += 1
        self.part_bytes += looked.part_bytes
        self.bad += bool(looked.faults)
        self.skipped += looked.is_skipped
        for tally in self.tallies:
            tally.add(looked)
        for fault in looked.faults:
            self._add_fault(fault)
        if looked.faults or looked.is_skipped:
            return
        self.good += 1
        taken = len(self.samples)
        if taken < len(self.wanted) and self.looked_at > self.wanted[taken]:
            self.samples.append(_sample(looked))

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
            toml=str(self.source.fields),
            fields=tuple(self._with_texts(tally) for tally in self.tallies),
            reasons=tuple(
                Reason(field=key[0], example=self.examples[key], count=count)
                for key, count in self.reasons.most_common()
            ),
            first_bad=tuple(self.first_bad),
            lost=tuple(self.source.faults),
            samples=tuple(self.samples),
        )

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
        texts, limits = [], self.source.fields.limits
        for count, place in made.duplicates.frequent:
            raw = self.source.shards.read(place)
            part = find_part(raw.parts, tally.field.parts, parsed={}, limits=limits)
            texts.append((count, text_of(part)))
        return dataclasses.replace(made, frequent=tuple(texts))


def _nothing() -> None:
    """A job's only part: the record is its result."""


def _sample(looked: Looked) -> Sample:
    pictures: dict[str, np.ndarray] = {}
    texts: dict[str, str] = {}
    values: dict[str, str] = {}
    for name, one in looked.found.items():
        if isinstance(one.decoder, ImageDecoder):
            pictures[name] = one.array
        elif one.measured is not None and one.measured.text is not None:
            texts[name] = one.measured.text
        else:
            values[name] = _value(one)
    return Sample(
        key=looked.key,
        shard=looked.shard,
        row=looked.row,
        pictures=pictures,
        texts=texts,
        values=values,
    )


def _value(found: Found) -> str:
    if found.measured is None:
        return "default"
    for name, size in found.measured.sizes.items():
        return f"{size:g}" if name == "value" else f"{size:.3g} {name}"
    return f"{found.array.dtype} {list(found.array.shape)}"
