"""What a row of a table, or a map of parts, is called."""

from typing import Any

from datarax.sources.record import DecodeError

KEY = "__key__"


def key_of(value: Any, *, row: int) -> str:
    """The key that a part `__key__` gives, or the row's number where it is `None`.

    Raises:
      DecodeError: if it is neither text nor a whole number.

    Example:
      >>> key_of("a", row=3), key_of(None, row=3), key_of(7, row=3)
      ('a', '3', '7')
    """
    match value:
        case None:
            return str(row)
        case str():
            return value
        case bytes():  # a column of bytes, or text that is no UTF-8
            return value.decode("utf-8", "backslashreplace")
        case int() if not isinstance(value, bool):
            return str(value)
    raise DecodeError(f"is a {type(value).__name__}, and no key")
