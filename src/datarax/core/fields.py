"""Fields of a record by name: exactly first, then as a path (`"audio.embedding"`)."""

from collections.abc import Iterable, Mapping
from typing import Any

Path = tuple[str, ...]


def has_field(data: Any, name: str) -> bool:
    """Whether `data` holds the field.

    Example:
      >>> has_field({"audio": {"embedding": 1}}, "audio.embedding")
      True
    """
    if not isinstance(data, Mapping):
        return False
    if name in data:
        return True
    head, _, rest = name.partition(".")
    return bool(rest) and head in data and has_field(data[head], rest)


def get_field(data: Any, name: str) -> Any:
    """The value of a field.

    Raises:
      KeyError: naming the field and those that there are.
    """
    require_fields(data, [name])
    while name not in data:
        head, _, name = name.partition(".")
        data = data[head]
    return data[name]


def set_field(data: Any, name: str, value: Any) -> dict[str, Any]:
    """A copy of `data` with the field written; what is not on the path is shared, not copied.

    Raises:
      ValueError: if the path runs through something that is no mapping.

    Example:
      >>> set_field({"audio": {"a": 1}}, "audio.b", 2)
      {'audio': {'a': 1, 'b': 2}}
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"cannot write field {name!r} into a {type(data).__name__}")
    head, _, rest = name.partition(".")
    if name in data or not rest:
        return {**data, name: value}
    return {**data, head: set_field(data.get(head, {}), rest, value)}


def field_names(data: Any) -> list[str]:
    """All field names, nested ones as paths."""
    if not isinstance(data, Mapping):
        return []
    names: list[str] = []
    for name, value in data.items():
        inner = field_names(value)
        names += [f"{name}.{rest}" for rest in inner] if inner else [str(name)]
    return sorted(names)


def require_fields(data: Any, names: Iterable[str]) -> None:
    """Raise unless every field is there.

    Raises:
      KeyError: naming the missing fields and those that there are.
    """
    missing = [name for name in names if not has_field(data, name)]
    if missing:
        raise KeyError(f"batch lacks fields {missing}; it has {field_names(data)}")


def nest(flat: Mapping[Path, Any]) -> dict[str, Any]:
    """Nested dicts from paths."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = value
    return tree


def flatten(tree: Mapping[Any, Any], prefix: Path = ()) -> dict[Path, Any]:
    """Paths from nested dicts; a key that is no string is written as its `repr`.

    Example:
      >>> flatten({"a": {"b": 1}, "c": 2})
      {('a', 'b'): 1, ('c',): 2}
    """
    flat: dict[Path, Any] = {}
    for name, value in tree.items():
        path = (*prefix, name if isinstance(name, str) else repr(name))
        if isinstance(value, Mapping):
            flat |= flatten(value, path)
        else:
            flat[path] = value
    return flat
