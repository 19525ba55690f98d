"""Values of parts as plain Python, and whether two of them are the same."""

import math
from typing import Any

import numpy as np

from datarax.sources.record import RawRecord


def refusal(record: RawRecord, part: str, reason: object) -> ValueError:
    """An error about a part that cannot be written, naming its record."""
    return ValueError(f"record {record.key!r}, part {part!r}: {reason}")


def plain(value: Any) -> Any:
    """`value` with lists in place of arrays, at any depth.

    Example:
      >>> plain({"a": np.arange(2), "b": [b"c"]})
      {'a': [0, 1], 'b': [b'c']}
    """
    match value:
        case np.ndarray() | np.generic():
            return value.tolist()
        case list() | tuple():
            return [plain(item) for item in value]
        case dict():
            return {key: plain(item) for key, item in value.items()}
    return value


def same(value: Any, kept: Any) -> bool:
    """Whether a table that gives `kept` has lost nothing of the plain `value`.

    A table cannot tell a key that lacks from one that is null, nor 1 from 1.0 in a list.

    Example:
      >>> same({"a": [1]}, {"a": [1.0], "b": None}), same({"a": 1, "b": 2}, {"a": 1})
      (True, False)
    """
    match value, kept:
        case dict(), dict():
            extra = [item for key, item in kept.items() if key not in value]
            return all(item is None for item in extra) and all(
                same(item, kept.get(key)) for key, item in value.items()
            )
        case list(), list():
            return len(value) == len(kept) and all(map(same, value, kept))
        case float(), float():
            return value == kept or (math.isnan(value) and math.isnan(kept))
        case bool(), _:
            return value is kept
    return bool(value == kept) and not isinstance(kept, bool)
