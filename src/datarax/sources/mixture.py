"""Records of several sources in set shares."""

import bisect
import fractions
import functools
import hashlib
import itertools
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import jax
import numpy as np
from flax import nnx

from datarax.core.config import DataraxModuleConfig
from datarax.core.data_source import DataSourceModule
from datarax.core.element_batch import Element
from datarax.core.fields import Path, flatten, nest
from datarax.sources.record import Fault
from datarax.sources.traits import (
    Reading,
    ReadInto,
    bulk_reader,
    described_fields,
    lost_parts,
    optional_fields,
    padded_lengths,
    source_fingerprint,
)

logger = logging.getLogger(__name__)

Starved = Literal["raise", "warn"]


class MixtureSource(DataSourceModule):
    """The records of several sources, spread evenly in the shares of their weights.

    Which record stands where is a function of the position, in constant memory. A source's records
    come in their own order; a source of fewer records than its share starts again. The fields are
    those of all sources: one that a source does not have is optional. A record's metadata has the
    name of its `source` besides its own.

    Args:
      sources: by name. A field of one name has one shape and dtype in all that have it.
      weights: by the same names, at least 0, not all 0; their sum does not matter.
      records: how many in an epoch; `None` is as few as hold every record of every source with a
        weight at least once. With fewer, a source's last ones may never come: `table` tells.
      on_starved: "raise" refuses weights that give a source no record, "warn" logs them.

    Raises:
      ValueError: for no sources, weights that do not fit, a field that differs between sources, or
        a source without a record in an epoch.

    Example:
      >>> import numpy as np
      >>> from datarax.sources import MemorySource
      >>> few, many = MemorySource({"x": np.arange(2)}), MemorySource({"x": np.arange(10, 16)})
      >>> mixture = MixtureSource({"few": few, "many": many}, {"few": 1, "many": 2})
      >>> [int(record.data["x"]) for record in mixture]
      [0, 10, 11, 12, 1, 13, 14, 15, 0]
    """

    def __init__(
        self,
        sources: Mapping[str, DataSourceModule],
        weights: Mapping[str, float],
        *,
        records: int | None = None,
        on_starved: Starved = "raise",
    ) -> None:
        super().__init__(DataraxModuleConfig())
        if on_starved not in get_args(Starved):
            raise ValueError(f"on_starved must be one of {get_args(Starved)}, got {on_starved!r}")
        if records is not None and records < 1:
            raise ValueError(f"records must be at least 1, got {records}")
        _check_weights(sources, weights)
        self.names = tuple(sources)
        self.parts = nnx.data(tuple(sources.values()))
        self.sizes = tuple(len(source) for source in self.parts)
        total = sum(fractions.Fraction(weights[name]) for name in self.names)
        self.shares = tuple(fractions.Fraction(weights[name]) / total for name in self.names)
        self.records = self._enough() if records is None else records
        self.counts = _apportion(self.records, self.shares)
        self.ends = tuple(itertools.accumulate(self.counts))
        self.stride = _stride(self.records)
        self.spec, self._optional = _union(sources)
        self._lengths = _shared_lengths(sources.values())
        self._check_starved(on_starved)

    def __len__(self) -> int:
        return self.records

    def __getitem__(self, index: int) -> Element:
        """Record `index`, the same at every call.

        Raises:
          IndexError: if there is no such record.
          RecordError: as the source that it is from.
        """
        name, row = self.place(index)
        record = self.parts[self.names.index(name)][row]
        return Element(record.data, record.state, {**(record.metadata or {}), "source": name})

    def place(self, index: int) -> tuple[str, int]:
        """The source that record `index` is from, and its number there.

        Raises:
          IndexError: if there is no such record.
        """
        position = index + self.records if index < 0 else index
        if not 0 <= position < self.records:
            raise IndexError(f"record {index} of a source of {self.records}")
        slot = position * self.stride % self.records
        which = bisect.bisect_right(self.ends, slot)
        end = self.ends[which]
        before = self._floors(position, end - self.counts[which]) - self._floors(position, end)
        return self.names[which], before % self.sizes[which]

    @property
    def read_into(self) -> ReadInto | None:
        """As the sources' own, if all have one."""
        readers = [read for source in self.parts if (read := bulk_reader(source)) is not None]
        if len(readers) < len(self.parts):
            return None
        return functools.partial(self._read_into, readers)

    def _read_into(
        self,
        readers: Sequence[ReadInto],
        numbers: Sequence[int],
        columns: Mapping[str, np.ndarray],
    ) -> Reading:
        by_source: dict[str, dict[int, int]] = {}
        for place, number in enumerate(numbers):
            name, row = self.place(number)
            by_source.setdefault(name, {})[place] = row
        reading = Reading([{} for _ in numbers], {}, {})
        for name, rows in by_source.items():
            part, places = self.names.index(name), list(rows)
            made = {
                field: np.empty((len(rows), *columns[field].shape[1:]), columns[field].dtype)
                for field in described_fields(self.parts[part])
            }
            metadata, lacking, lost = readers[part](list(rows.values()), made)
            for field, column in made.items():
                columns[field][places] = column
            for k, place in enumerate(places):
                if k in lost:
                    reading.lost[place] = lost[k]
                    continue
                reading.metadata[place] = {**metadata[k], "source": name}
                lacks = lacking.get(k, ())
                if absent := [field for field in columns if field not in made or field in lacks]:
                    reading.lacking[place] = absent
        return reading

    def _floors(self, position: int, edge: int) -> int:
        """A sum whose difference for two edges is how many earlier positions lie between them.

        Steps of near the golden section spread each source's share evenly over the epoch; how many
        of them fell into the share before is a difference of sums of floors, known without a walk.
        """
        return _floor_sum(position, self.records, self.stride, self.records - edge)

    @property
    def optional(self) -> tuple[str, ...]:
        """The fields that a record may lack: those that not every source always has."""
        return self._optional

    @property
    def padded_lengths(self) -> dict[str, tuple[int, ...]]:
        """Of the fields that are padded to one of several lengths, those that all sources have."""
        return self._lengths

    @property
    def faults(self) -> list[Fault]:
        """What the sources have lost as a whole."""
        return [fault for source in self.parts for fault in lost_parts(source)]

    def element_spec(self) -> dict[str, Any]:
        """Shape and dtype of every field of any source."""
        return self.spec

    def fingerprint(self) -> str:
        """16 hex digits that change with any source, its name, share or place, and the size."""
        digest = hashlib.blake2b(digest_size=8)
        for name, source, count in zip(self.names, self.parts, self.counts, strict=True):
            digest.update(f"{name!r} {source_fingerprint(source)} {count};".encode())
        return digest.hexdigest()

    def shares_by_name(self) -> dict[str, int]:
        """How many records of an epoch are from each source."""
        return dict(zip(self.names, self.counts, strict=True))

    def table(self) -> str:
        """A line a source: its records, expected and actual share, how often a record comes.

        Example:
          >>> import numpy as np
          >>> from datarax.sources import MemorySource
          >>> a, b = MemorySource({"x": np.arange(3)}), MemorySource({"x": np.arange(4)})
          >>> print(MixtureSource({"a": a, "b": b}, {"a": 3, "b": 1}).table())
          source  records  in an epoch  expected  actual  passes
          a             3           12   75.00 %  75.00 %    4.00
          b             4            4   25.00 %  25.00 %    1.00
        """
        width = max(6, *(len(name) for name in self.names))
        lines = [f"{'source':{width}}  records  in an epoch  expected  actual  passes"]
        rows = zip(self.names, self.sizes, self.counts, self.shares, strict=True)
        for name, size, count, share in rows:
            expected, actual = 100 * float(share), 100 * count / self.records
            lines.append(
                f"{name:{width}}  {size:7}  {count:11}  {expected:6.2f} %  {actual:5.2f} %"
                f"  {count / size:6.2f}"
            )
        return "\n".join(lines)

    def _enough(self) -> int:
        pairs = zip(self.sizes, self.shares, strict=True)
        return max(math.ceil(size / share) for size, share in pairs if share)

    def _check_starved(self, on_starved: Starved) -> None:
        starved = [name for name, count in zip(self.names, self.counts, strict=True) if not count]
        if not starved:
            return
        message = (
            f"the weights give {starved} no record in an epoch of {self.records}: "
            f"raise their weights or records\n{self.table()}"
        )
        if on_starved == "raise":
            raise ValueError(f"{message}\nor leave them out; on_starved='warn' only logs this")
        logger.warning(message)


def _check_weights(sources: Mapping[str, DataSourceModule], weights: Mapping[str, float]) -> None:
    if not sources:
        raise ValueError("a mixture needs at least one source")
    if set(sources) != set(weights):
        raise ValueError(
            f"weights must name each source: sources {sorted(sources)}, weights {sorted(weights)}"
        )
    wrong = {name: x for name, x in weights.items() if not (math.isfinite(x) and x >= 0)}
    if wrong or not any(weights.values()):
        raise ValueError(
            f"weights must be finite, at least 0, and not all 0, got {wrong or dict(weights)}"
        )
    if empty := [name for name, source in sources.items() if not len(source)]:
        raise ValueError(f"the sources {empty} have no records: leave them out")


def _apportion(records: int, shares: tuple[fractions.Fraction, ...]) -> tuple[int, ...]:
    """Whole numbers nearest to the shares that sum to `records`: the largest remainders go up."""
    exact = [records * share for share in shares]
    counts = [math.floor(x) for x in exact]
    by_rest = sorted(range(len(exact)), key=lambda k: (counts[k] - exact[k], k))
    for k in by_rest[: records - sum(counts)]:
        counts[k] += 1
    return tuple(counts)


def _stride(records: int) -> int:
    """A step that visits all slots, near the golden section of `records`.

    The smaller the quotients of the continued fraction `records / step`, the more even the spread:
    those of the golden section are all 1 (Niederreiter, 1992, theorem 3.4).
    """
    middle = max(1, records * 618034 // 10**6)
    coprime = (x for x in itertools.count(middle) if math.gcd(x, records) == 1)
    return min(itertools.islice(coprime, 64), key=lambda step: _largest_quotient(records, step))


def _largest_quotient(a: int, b: int) -> int:
    largest = 0
    while b:
        largest, a, b = max(largest, a // b), b, a % b
    return largest


def _floor_sum(count: int, divisor: int, slope: int, offset: int) -> int:
    """The sum of `(slope * i + offset) // divisor` over `i < count`, in Euclid's steps.

    Reference: AtCoder Library, `floor_sum`.
    """
    total = 0
    while count:
        total += (count - 1) * count // 2 * (slope // divisor) + count * (offset // divisor)
        slope, offset = slope % divisor, offset % divisor
        top = slope * count + offset
        if top < divisor:
            return total
        count, offset = divmod(top, divisor)
        divisor, slope = slope, divisor
    return total


def _shared_lengths(sources: Iterable[DataSourceModule]) -> dict[str, tuple[int, ...]]:
    """The lengths that a field may have in every source that has it."""
    shared: dict[str, set[int]] = {}
    for source in sources:
        lengths = padded_lengths(source)
        for path, kind in flatten(source.element_spec()).items():
            name = ".".join(path)
            own = set(lengths.get(name, kind.shape[:1]))
            shared[name] = shared.get(name, own) & own
    return {name: tuple(sorted(found)) for name, found in shared.items() if len(found) > 1}


def _union(
    sources: Mapping[str, DataSourceModule],
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Every field of any source, and those that not every record has."""
    specs = {name: flatten(source.element_spec()) for name, source in sources.items()}
    union: dict[Path, jax.ShapeDtypeStruct] = {}
    for spec in specs.values():
        for path, kind in spec.items():
            union.setdefault(path, kind)
    for path, kind in union.items():
        kinds = {name: spec[path] for name, spec in specs.items() if path in spec}
        if any((k.shape, k.dtype) != (kind.shape, kind.dtype) for k in kinds.values()):
            listed = ", ".join(f"{n} has {k.dtype}{list(k.shape)}" for n, k in kinds.items())
            raise ValueError(
                f"field {'.'.join(path)!r} differs between the sources: {listed}; "
                "give it one shape and dtype, or another name in one of them"
            )
    named = {name: set(optional_fields(source)) for name, source in sources.items()}
    optional = tuple(
        ".".join(path)
        for path in union
        if any(path not in spec or ".".join(path) in named[n] for n, spec in specs.items())
    )
    return nest(union), optional
