"""Settings: dataclass fields that know their help, choices and range, and their TOML form.

A setting is a `bool`, `int`, `float`, `str`, a `tuple` of one of them, a table (`Mapping`), one of
these `| None`, or one `|` a tuple of it. What a table holds is checked by whoever reads it.
"""

import dataclasses
import difflib
import json
import sys
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    dict: "a table",
}
_MAX_BYTES = 1 << 20
_LARGEST = sys.float_info.max


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What a field accepts beyond its type. Bounds hold for each entry of a tuple too."""

    help: str
    choices: tuple[str, ...] = ()
    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a number is finite and within the bounds."""
        return (
            -_LARGEST <= value <= _LARGEST  # exact for any int; false for inf and NaN
            and (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    @property
    def bounds(self) -> str:
        """The range in words, such as `at least 0 and below 1`."""
        named = {
            "above": self.above,
            "at least": self.at_least,
            "at most": self.at_most,
            "below": self.below,
        }
        words = [f"{word} {bound!r}" for word, bound in named.items() if bound is not None]
        return " and ".join(words) or "finite"


def setting(default: Any, *, help: str, **limits: Any) -> Any:
    """A dataclass field with a default and the limits of `Setting`."""
    return dataclasses.field(default=default, metadata={"setting": Setting(help=help, **limits)})


def suggestion(word: str, choices: Iterable[str]) -> str:
    """`did you mean 'x'?` where a choice is close to `word`, else the list of choices.

    Example:
      >>> suggestion("epoch", ["epochs", "seed"])
      "did you mean 'epochs'?"
      >>> suggestion("colour", ["epochs", "seed"])
      'choose from epochs, seed'
    """
    names = sorted(choices)
    close = difflib.get_close_matches(word.lower(), names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(names)}"


def check_settings(config: Any) -> None:
    """Raises a ValueError for the first field whose value is of the wrong type or out of range."""
    hints = typing.get_type_hints(type(config))
    values = dataclasses.asdict(config)
    for field in dataclasses.fields(config):
        _check(values[field.name], hint=hints[field.name], field=field)


def settings_from(mapping: Mapping[str, Any], cls: type) -> dict[str, Any]:
    """TOML values as keyword arguments of the dataclass `cls`: lists become tuples.

    Raises:
      ValueError: for a key that is not a field, a wrong type, a value out of range.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    settings = {}
    for key, value in mapping.items():
        if key not in fields:
            raise ValueError(f"unknown key {key!r}: {suggestion(key, fields)}")
        settings[key] = tuple(value) if isinstance(value, list) else value
        _check(settings[key], hint=hints[key], field=fields[key])
    return settings


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
      ValueError: naming the file, and the line where it is malformed.
      OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"{path}: more than {_MAX_BYTES} bytes, which is no configuration")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text, got byte {error.start} of it") from error
    except ValueError as error:  # a TOMLDecodeError, or a number of more than 4300 digits
        raise ValueError(f"{path}: not valid TOML: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{path}: not valid TOML: nested too deeply") from error


def parse_assignment(text: str, cls: type) -> tuple[str, Any]:
    """`"epochs=3"` as `("epochs", 3)`: the value in TOML, where text needs no quotes.

    A tuple may be written as a TOML list or as `a,b`.

    Raises:
      ValueError: without `=`.
    """
    key, separator, written = text.partition("=")
    key, written = key.strip(), written.strip()
    if not (separator and key):
        raise ValueError(f"expected key=value, got {text!r}")
    hints = typing.get_type_hints(cls)
    if key in hints and _entry_type(hints[key]) is not None and not written.startswith("["):
        return key, [_parse_value(part.strip()) for part in written.split(",") if part.strip()]
    return key, _parse_value(written)


def to_toml(config: Any) -> str:
    """A dataclass of settings as TOML text, each with its help as a comment; None is left out."""
    lines, tables = [], []
    for field in dataclasses.fields(config):
        value = dataclasses.asdict(config)[field.name]
        if isinstance(value, dict):
            inside = [f"{_key(name)} = {_emit(entry)}" for name, entry in value.items()]
            tables += ["", f"# {_limits(field).help}", f"[{field.name}]", *inside]
        elif value is not None:
            lines += ["", f"# {_limits(field).help}", f"{field.name} = {_emit(value)}"]
    return "\n".join([*lines, *tables]) + "\n"


def _parse_value(written: str) -> Any:
    # A line break would let a value smuggle in a second key.
    if "\n" in written or "\r" in written:
        return written
    try:
        return tomllib.loads(f"value = {written}")["value"]
    except (ValueError, RecursionError):
        return written


def _emit(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case tuple() | list():
            return f"[{', '.join(_emit(entry) for entry in value)}]"
        case dict():
            inside = ", ".join(f"{_key(name)} = {_emit(entry)}" for name, entry in value.items())
            return f"{{{inside}}}"
    raise TypeError(f"expected a bool, number, text, list or table, got {value!r}")


def _key(name: str) -> str:
    plain = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if plain else _emit(name)


def _limits(field: dataclasses.Field[Any]) -> Setting:
    return field.metadata["setting"]


def _check(value: Any, *, hint: Any, field: dataclasses.Field[Any]) -> None:
    limits = _limits(field)
    if isinstance(hint, types.UnionType):
        members = typing.get_args(hint)
        if value is None and types.NoneType in members:
            return
        listed = [x for x in members if isinstance(value, tuple) and _entry_type(x) is not None]
        hint = [*listed, *members][0]
    hint = dict if typing.get_origin(hint) is Mapping else hint
    entry = _entry_type(hint)
    entries = [value] if entry is None else value
    expected = _expected(entry or hint, limits, listed=entry is not None)
    if entry is not None and not isinstance(value, tuple):
        raise ValueError(f"{field.name}: expected {expected}, got {_told(value)}")
    for part in entries:
        if not _fits(part, entry or hint):
            raise ValueError(f"{field.name}: expected {expected}, got {_told(part)}")
        if isinstance(part, str) and limits.choices and part not in limits.choices:
            hint_text = suggestion(part, limits.choices)
            raise ValueError(f"{field.name}: expected {expected}, got {part!r}; {hint_text}")
        if isinstance(part, int | float) and not limits.holds(part):
            raise ValueError(f"{field.name}: expected {expected}, got {part!r}")


def _entry_type(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else None


def _fits(value: Any, hint: type) -> bool:
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float) if hint is float else isinstance(value, hint)


def _expected(hint: type, limits: Setting, *, listed: bool) -> str:
    words = _WORDS[hint]
    if limits.choices:
        words = f"one of {', '.join(limits.choices)}"
    elif hint in (int, float):
        words = f"{words} {limits.bounds}".removesuffix(" finite")
    return f"a list, each entry {words}" if listed else words


def _told(value: Any) -> str:
    match value:
        case str():
            return f"the text {value!r}"
        case dict():
            return "a table"
    return json.dumps(value) if isinstance(value, bool) else repr(value)
