"""A record as its shard holds it, and what can be wrong with one."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, NamedTuple


class RawRecord(NamedTuple):
    """Named parts that are not yet decoded.

    Attributes:
      key: what the record is called in its shard.
      parts: by name (`"png"`, `"caption"`, a column): bytes, text, numbers, lists, dicts or `None`.
    """

    key: str
    parts: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Fault:
    """What could not be read, where, and why: a line of the ledger.

    Attributes:
      shard: the file's name.
      key: of the record; empty if the shard itself is at fault.
      row: of the record in its shard; `None` if the shard itself is at fault.
      field: the field or part; empty if the whole record is at fault.
      reason: one line.

    Example:
      >>> Fault("a.tar", key="7", row=7, field="image", reason="not an image").line()
      '{"shard": "a.tar", "key": "7", "row": 7, "field": "image", "reason": "not an image"}'
    """

    shard: str
    key: str = ""
    row: int | None = None
    field: str = ""
    reason: str = ""

    def line(self) -> str:
        """One line of JSON, without its end."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=True)

    def __str__(self) -> str:
        where = [self.shard, *([f"record {self.key!r}"] if self.key else []), self.field]
        return f"{', '.join(part for part in where if part)}: {self.reason}"


class RecordError(ValueError):
    """A record that cannot be read, or lacks what it must have."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class RecordSkipped(RecordError):
    """A record that lacks a field without which it is to be left out; not an error of the data."""


class Lost(NamedTuple):
    """What an error says of a record, without the frames that an error keeps in memory.

    Attributes:
      fault: where and why.
      is_skipped: whether it is left out by choice: `RecordSkipped`.
    """

    fault: Fault
    is_skipped: bool

    @classmethod
    def of(cls, error: RecordError) -> "Lost":
        """What `error` says."""
        return cls(error.fault, isinstance(error, RecordSkipped))


class DecodeError(ValueError):
    """Bytes or a value that a decoder cannot make a field of; says why in one line."""


class FieldError(ValueError):
    """A field that cannot be read from a record's parts, before it is known whose they are."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class FieldSkipped(FieldError):
    """A record lacks the field, and is to be left out for it."""
