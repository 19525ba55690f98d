"""Numbers, shares and texts as a reader wants them."""


def number(value: float) -> str:
    """With separators; four digits of what is no whole number.

    Example:
      >>> number(12345), number(2.34567), number(0.0)
      ('12,345', '2.346', '0')
    """
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def share(count: int, whole: int) -> str:
    """In percent; 100 % is all and 0 % none, whatever rounding says.

    Example:
      >>> share(9999, 10_000), share(1, 10_000), share(3, 3), share(0, 3)
      ('99.9 %', '0.1 %', '100 %', '0 %')
    """
    if count in (0, whole):
        return "100 %" if count else "0 %"
    return f"{min(max(100 * count / whole, 0.1), 99.9):.1f} %"


def size(count: int) -> str:
    """Bytes with three digits.

    Example:
      >>> size(999), size(1234), size(56_700_000)
      ('999 B', '1.23 kB', '56.7 MB')
    """
    value, units = float(count), ["B", "kB", "MB", "GB", "TB", "PB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}" if units[0] != "B" else f"{count} B"


def shortened(text: str, most: int) -> str:
    """At most so many characters, the last "…" if it was cut."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def printable(text: str) -> str:
    """On one line, without what steers a terminal or turns the order of characters."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def printable_toml(text: str) -> str:
    r"""TOML with escapes for what is not printable: it stands in quotes, whatever the data did.

    Example:
      >>> printable_toml('from = "a\u202eb"')
      'from = "a\\u202eb"'
    """
    return "".join(c if c == "\n" or c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 2**16 else f"\\U{code:08x}"
