"""Which files are meant, and how one is opened: local ones, and URLs where fsspec is installed."""

import glob
import itertools
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

MOST_PATHS = 2**20
INDEX_SUFFIX = ".datarax-index"  # what we keep beside a file; never a file of records

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")


def expand_paths(
    paths: str | Path | Iterable[str | Path], *, suffixes: Sequence[str] | None = None
) -> list[str]:
    """Files, from paths, directories, globs, brace ranges, brace lists and URLs.

    A file or directory of exactly that name comes before a reading as a pattern. A directory stands
    for its own files, a glob for the files that match (`**` for any depth), both sorted, hidden
    files left out; otherwise the order is as given. `{000..012}` counts up or down and keeps
    leading zeros, `{a,b}` lists; braces are not nested. URLs (`s3://...`) need fsspec.

    Args:
      paths: one, or several.
      suffixes: of the files that a directory stands for, in any case; `None` is every file.

    Raises:
      ValueError: if a pattern finds nothing or means more than 2^20 paths, a file is given twice,
        or no path is given.
      ImportError: for a URL without fsspec.

    Example:
      >>> import os, tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     for n in range(12):
      ...         _ = Path(folder, f"data-{n:03}.tar").touch()
      ...     [os.path.basename(path) for path in expand_paths(f"{folder}/data-{{009..011}}.tar")]
      ['data-009.tar', 'data-010.tar', 'data-011.tar']
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    if not given:
        raise ValueError("no path is given")
    ends = None if suffixes is None else tuple(suffix.lower() for suffix in suffixes)
    found: list[str] = []
    for entry in given:
        text = os.fspath(entry)
        for pattern in [text] if _is_there(text) else expand_braces(text):
            files = _remote_files(pattern, ends) if is_url(pattern) else _files(pattern, ends)
            if not files:
                raise ValueError(_nothing(pattern, text, ends))
            found += files
    _refuse_repeated(found)
    return found


def expand_braces(pattern: str) -> list[str]:
    """`pattern` with every brace range and list written out, the last varying fastest.

    Raises:
      ValueError: if that is more than 2^20 paths.

    Example:
      >>> expand_braces("{a,b}-{08..10}")
      ['a-08', 'a-09', 'a-10', 'b-08', 'b-09', 'b-10']
    """
    pieces = _BRACES.split(pattern)  # text and insides of braces by turns
    choices: list[Sequence[str]] = [
        _choices(piece) if place % 2 else [piece] for place, piece in enumerate(pieces)
    ]
    total = math.prod(len(choice) for choice in choices)
    if total > MOST_PATHS:
        raise ValueError(f"{pattern} means {total} paths, at most {MOST_PATHS} are read")
    return ["".join(parts) for parts in itertools.product(*choices)]


def is_url(path: str | Path) -> bool:
    """Whether fsspec is needed to read `path`."""
    return "://" in str(path)


def open_binary(path: str | Path) -> BinaryIO:
    """A file or URL, open for reading at any place.

    Raises:
      OSError: if it cannot be opened, or is neither a file nor a URL.
      ImportError: for a URL without fsspec.
    """
    if is_url(path):
        filesystem, inner = remote(str(path))
        return cast(BinaryIO, filesystem.open(inner, "rb"))
    _require_file(path)
    return open(path, "rb")


def file_version(path: str | Path) -> tuple[int, str]:
    """Size in bytes, and a text that another version of the file would not have.

    The text is the time of the last change in ns, or what the store says of a URL.

    Raises:
      OSError: if there is no such file.
      ImportError: for a URL without fsspec.
    """
    if is_url(path):
        filesystem, inner = remote(str(path))
        return int(filesystem.info(inner)["size"]), str(filesystem.ukey(inner))
    status = _require_file(path)
    return status.st_size, str(status.st_mtime_ns)


def remote(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Raises:
      ImportError: if fsspec, or what it needs for this kind of URL, is not installed.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise ImportError(f"to read {url}: pip install 'datarax[remote]'") from error
    filesystem, inner = url_to_fs(url)
    return filesystem, inner


def _require_file(path: str | Path) -> os.stat_result:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # a pipe would wait for its writer
        raise OSError(f"{path} is not a file")
    return status


def _is_there(text: str) -> bool:
    return not is_url(text) and os.path.lexists(text)


class _Range(Sequence[str]):
    """The numbers of a brace range, none of them written before it is known how many there are."""

    def __init__(self, first: str, last: str) -> None:
        start, stop = int(first), int(last)
        self.numbers = range(start, stop + 1) if start <= stop else range(start, stop - 1, -1)
        padded = any(len(text) > 1 and text[0] == "0" for text in (first, last))
        self.width = max(len(first), len(last)) if padded else 0

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: Any) -> Any:
        return f"{self.numbers[place]:0{self.width}}"

    def __iter__(self) -> Iterator[str]:
        return (f"{number:0{self.width}}" for number in self.numbers)


def _choices(inside: str) -> Sequence[str]:
    if match := _RANGE.fullmatch(inside):
        return _Range(*match.groups())
    return inside.split(",") if "," in inside else ["{" + inside + "}"]


def _files(pattern: str, suffixes: tuple[str, ...] | None) -> list[str]:
    if os.path.isdir(pattern):
        with os.scandir(pattern) as entries:
            names = [entry.path for entry in entries if entry.is_file()]
        return _chosen(names, suffixes)
    if os.path.lexists(pattern):
        return [pattern]
    matches = glob.iglob(pattern, recursive=True)
    return _chosen([name for name in matches if os.path.isfile(name)], None)


def _remote_files(url: str, suffixes: tuple[str, ...] | None) -> list[str]:
    filesystem, inner = remote(url)
    if not glob.has_magic(inner):
        if not filesystem.isdir(inner):
            return [url] if filesystem.exists(inner) else []
        details = filesystem.ls(inner, detail=True)
        names = [entry["name"] for entry in details if entry["type"] == "file"]
    elif "::" in url:
        raise ValueError(f"{url} is a glob in a chain of URLs: list the files themselves")
    else:
        suffixes = None
        details = filesystem.glob(inner, detail=True)
        names = [name for name, entry in details.items() if entry["type"] == "file"]
    return _chosen([filesystem.unstrip_protocol(name) for name in names], suffixes)


def _chosen(names: list[str], suffixes: tuple[str, ...] | None) -> list[str]:
    return sorted(
        name
        for name in names
        if not os.path.basename(name).startswith(".")
        and not name.endswith(INDEX_SUFFIX)
        and (suffixes is None or name.lower().endswith(suffixes))
    )


def _nothing(pattern: str, text: str, suffixes: tuple[str, ...] | None) -> str:
    of = "" if pattern == text else f" (of {text})"
    if _is_there(pattern) and os.path.isdir(pattern):
        return f"{pattern}{of} has no files{f' with suffix {suffixes}' if suffixes else ''}"
    return f"{pattern}{of} finds no file"


def _refuse_repeated(found: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in found:
        real = name if is_url(name) else os.path.realpath(name)
        if real in seen:
            raise ValueError(f"the same file is given twice: {seen[real]} and {name}")
        seen[real] = name
