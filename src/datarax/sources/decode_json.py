"""JSON as data may hold it: no deep nests, duplicate keys or numbers that are not finite."""

import json
import math
import re
from typing import Any

from datarax.sources.record import DecodeError

# possessive, and the closing quote optional: an unterminated string is passed over only once
TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def parse_json(data: bytes | str, *, depth: int) -> Any:
    r"""The value that a JSON text stands for.

    Args:
      data: the text; bytes are UTF-8.
      depth: of nested lists and objects, at most.

    Raises:
      DecodeError: if it is no JSON, nested deeper, has a key twice in one object, or a number that
        is not finite as a float.

    Example:
      >>> parse_json(b'{"a": [1, 2.5]}', depth=2)
      {'a': [1, 2.5]}
    """
    try:
        text = data if isinstance(data, str) else str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise DecodeError(f"not JSON: invalid UTF-8 at byte {error.start}") from error
    _check_depth(text, depth)
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except DecodeError:
        raise
    except ValueError as error:  # JSONDecodeError, and integers of thousands of digits
        raise DecodeError(f"not JSON: {error}") from error


def follow(value: Any, path: str) -> Any:
    """What a dotted path leads to in nested objects and lists; `None` where a part of it lacks.

    A key that has dots itself is found too. Numbers in the path are places in a list.

    Raises:
      DecodeError: if the path leads through something that is neither object nor list.

    Example:
      >>> follow({"a": {"b": [5, 6]}, "c.d": 7}, "a.b.1"), follow({"c.d": 7}, "c.d")
      (6, 7)
    """
    if value is None:
        return None
    head, _, rest = path.partition(".")
    if isinstance(value, dict):
        if path in value:
            return value[path]
        found = value.get(head)
    elif isinstance(value, list):
        if not re.fullmatch(r"[0-9]{1,9}", head):
            raise DecodeError(f"expected a place in a list, got {head!r}")
        found = value[int(head)] if int(head) < len(value) else None
    else:
        raise DecodeError(f"expected an object with {head!r}, got {type(value).__name__}")
    return follow(found, rest) if rest else found


def _check_depth(text: str, depth: int) -> None:
    if text.count("[") + text.count("{") <= depth:
        return
    level = 0
    for token in TOKEN.finditer(text):
        first = token[0][0]
        if first != '"':
            level += 1 if first in "[{" else -1
            if level > depth:
                raise DecodeError(f"JSON is nested deeper than {depth} (Limits.json_depth)")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise DecodeError(f"JSON has the key {twice!r} twice in one object")
    return made


def _refuse_constant(name: str) -> Any:
    raise DecodeError(f"JSON has the number {name}, which is not finite")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise DecodeError(f"JSON has the number {digits[:32]}, which is not finite as a float")
    return value
