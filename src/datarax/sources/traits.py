"""What a source may offer beyond its records."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from datarax.core.data_source import DataSourceModule
from datarax.core.element_batch import Batch
from datarax.core.fields import flatten
from datarax.sources.record import Fault, Lost


class Reading(NamedTuple):
    """How the reading of records into rows of arrays went.

    Attributes:
      metadata: of each record, `{}` of one that is lost.
      lacking: by row, the fields that a record lacks, whose rows hold anything.
      lost: by row, the records that cannot be read or are left out, whose rows hold anything.
    """

    metadata: list[dict[str, Any]]
    lacking: dict[int, list[str]]
    lost: dict[int, Lost]


ReadInto = Callable[[Sequence[int], Mapping[str, np.ndarray]], Reading]


@runtime_checkable
class Columnar(Protocol):
    """Hands out many records at once, none of which can be at fault."""

    def take(self, rows: np.ndarray) -> Batch:
        """Records by number, as a batch whose structure does not depend on the rows."""


@runtime_checkable
class Bulk(Protocol):
    """Reads many records at once, each of which may be at fault."""

    @property
    def read_into(self) -> ReadInto | None:
        """Reads n records by number into arrays by field, `[n, ...]` as in `element_spec`.

        What the arrays held before must not matter: a row is written whole, or is said to lack.
        `None` if it cannot.
        """


@runtime_checkable
class Fingerprinted(Protocol):
    """Tells one content from another."""

    def fingerprint(self) -> str:
        """Changes with the content."""


@runtime_checkable
class Faulty(Protocol):
    """Knows what it has lost as a whole."""

    @property
    def faults(self) -> Sequence[Fault]:
        """What no record number speaks of: a part behind a cut, a file that is refused."""


@runtime_checkable
class PartlyOptional(Protocol):
    """Knows which fields a record may lack."""

    @property
    def optional(self) -> Sequence[str]:
        """Their names."""


@runtime_checkable
class Padded(Protocol):
    """Knows which of its fields a batch may cut shorter than a record has them."""

    @property
    def padded_lengths(self) -> Mapping[str, Sequence[int]]:
        """By field, rising, the last being a record's; a batch has the shortest that holds it.

        A field of these has a mask, `<name>_mask`, of what is there.
        """


def source_fingerprint(source: DataSourceModule) -> str:
    """The source's own fingerprint; else its type, its size and its fields."""
    if isinstance(source, Fingerprinted):
        return source.fingerprint()
    fields = ", ".join(f"{name} {kind}" for name, kind in described_fields(source).items())
    return f"{type(source).__name__}({len(source)} records, {fields})"


def described_fields(source: DataSourceModule) -> dict[str, str]:
    """Dtype and shape of every field, nested ones by path.

    Example:
      >>> from datarax.sources import MemorySource
      >>> described_fields(MemorySource({"x": np.zeros((3, 2), np.uint8)}))
      {'x': 'uint8[2]'}
    """
    return {
        ".".join(path): f"{np.dtype(spec.dtype)}[{', '.join(map(str, spec.shape))}]"
        for path, spec in flatten(source.element_spec()).items()
    }


def optional_fields(source: DataSourceModule) -> tuple[str, ...]:
    """The fields that a record may lack; of a source that does not say, all."""
    if isinstance(source, PartlyOptional):
        return tuple(source.optional)
    if (many := columnar(source)) is not None:
        return tuple(many.take(np.zeros(1, np.int64)).presence)
    return tuple(described_fields(source))


def padded_lengths(source: DataSourceModule) -> dict[str, tuple[int, ...]]:
    """The lengths that fields may have in a batch; none, of a source that does not say."""
    if not isinstance(source, Padded):
        return {}
    return {name: tuple(lengths) for name, lengths in source.padded_lengths.items()}


def bulk_reader(source: DataSourceModule) -> ReadInto | None:
    """What reads many records at once; `None` for a source that can give them one by one alone."""
    return (
        source.read_into if isinstance(source, Bulk) and _is_its_own(source, "read_into") else None
    )


def columnar(source: DataSourceModule) -> Columnar | None:
    """The source, if it hands out many records at once."""
    return source if isinstance(source, Columnar) and _is_its_own(source, "take") else None


def _is_its_own(source: DataSourceModule, method: str) -> bool:
    """Whether a method gives what `source[i]` does: no class below the method's changes that."""
    for owner in type(source).__mro__:
        if method in vars(owner):
            return True
        if "__getitem__" in vars(owner):
            return False
    return False


def lost_parts(source: DataSourceModule) -> list[Fault]:
    """What the source has lost as a whole; nothing, of a source that does not say."""
    return list(source.faults) if isinstance(source, Faulty) else []
