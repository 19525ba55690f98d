"""Where in a record a named part lies."""

from collections.abc import Mapping, Sequence
from typing import Any

from datarax.sources.decode_json import follow, parse_json
from datarax.sources.limits import Limits
from datarax.sources.record import DecodeError


def find_part(
    parts: Mapping[str, Any], names: Sequence[str], *, parsed: dict[str, Any], limits: Limits
) -> Any:
    """The first named part that is there and not null, or `None`.

    Args:
      parts: of a record.
      names: each a part, or a path into the JSON or the struct of the longest part it begins with.
      parsed: keeps the JSON of one record from name to name.
      limits: on bytes and JSON.

    Raises:
      DecodeError: if a part is beyond the limits, or its JSON cannot be read or does not have the
        shape of the path.

    Example:
      >>> parts = {"json": b'{"a": [5, 6]}', "seg.png": b"..."}
      >>> find_part(parts, ["txt", "json.a.1"], parsed={}, limits=Limits())
      6
    """
    for name in names:
        found = parts.get(name)
        if type(found) is bytes and len(found) <= limits.member_bytes:
            return found  # the usual case, in half the time
        if found is None and "." in name:
            found = _inside(parts, name, parsed=parsed, limits=limits)
        if isinstance(found, bytearray | memoryview):
            found = bytes(found)
        if found is not None:
            _check_size(name, found, limits)
            return found
    return None


def _inside(parts: Mapping[str, Any], name: str, *, parsed: dict[str, Any], limits: Limits) -> Any:
    steps = name.split(".")
    for end in range(len(steps) - 1, 0, -1):
        part = ".".join(steps[:end])
        value = parts.get(part)
        if value is None:
            continue
        if isinstance(value, bytes | str):
            if part not in parsed:
                parsed[part] = _parse(part, value, limits)
            value = parsed[part]
        try:
            return follow(value, ".".join(steps[end:]))
        except DecodeError as error:
            raise DecodeError(f"{name}: {error}") from error
    return None


def _parse(part: str, value: bytes | str, limits: Limits) -> Any:
    _check_size(part, value, limits)
    try:
        return parse_json(value, depth=limits.json_depth)
    except DecodeError as error:
        raise DecodeError(f"{part}: {error}") from error


def _check_size(part: str, value: Any, limits: Limits) -> None:
    if isinstance(value, bytes | str) and len(value) > limits.member_bytes:
        most = f"at most {limits.member_bytes} (Limits.member_bytes)"
        raise DecodeError(f"{part} has {len(value)} bytes, {most}")
