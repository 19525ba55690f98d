"""Records of JSON lines: a manifest, with paths to files."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from datarax.sources.arrow_cells import FILE
from datarax.sources.beside import read_beside
from datarax.sources.decode_json import parse_json
from datarax.sources.files import FilesSource
from datarax.sources.limits import Limits
from datarax.sources.record import DecodeError, Fault, RawRecord, RecordError
from datarax.sources.row_key import KEY, key_of
from datarax.sources.tar_bytes import open_bytes

BLOCK = 2**22
BOM = b"\xef\xbb\xbf"
NAMES_FILE = "_path"


class JsonLinesShard:
    r"""The objects of one file of JSON lines; a part is a name of the object.

    A value `{"path": ...}` (also with `"bytes": null`), or the text of a name that ends in `_path`
    (`image_path`, for the part `image`), stands for the bytes of a file: in the manifest's folder
    or below, and nowhere else. `file_name`, as Hugging Face's folders have it, is the part `file`
    likewise. A name `__key__` is the record's key; else its line number is, from 0, blank lines not
    counted.

    What is not as it should be:

    - A line that is no JSON object, no UTF-8, deeper than `limits.json_depth`, or longer than
      `limits.member_bytes`; a file that is missing, too large, or elsewhere: that row raises, and
      the others keep their numbers.
    - A last line without its end: a row, which raises if it is cut.
    - A byte order mark, `\r\n`, blank lines: passed over. No lines: no records, and a fault.

    Args:
      path: a file or a URL (whose records name no files).
      limits: on lines, files and JSON; `None` is the usual ones.

    Raises:
      OSError: if the file cannot be read.
      ImportError: for a URL without fsspec.
    """

    def __init__(self, path: str | Path, *, limits: Limits | None = None) -> None:
        self.name = os.fspath(path)
        self.limits = Limits() if limits is None else limits
        self._bytes = open_bytes(self.name)
        self._starts, self._sizes, self._digest = self._find_lines()
        empty = () if len(self._starts) else (Fault(self.name, reason="no lines"),)
        self.faults: tuple[Fault, ...] = empty

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, row: int) -> RawRecord:
        """Record `row`: the values of its object.

        Raises:
          IndexError: if there is no such record.
          RecordError: if the line is no object, or a file that it names cannot be had.
          OSError: if a file cannot be read, or the manifest has changed.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"record {row} of {len(self)} in {self.name}")
        key, field = str(row), ""
        parts: dict[str, Any] = {}
        try:
            entries = self._object(row)
            key = key_of(entries.pop(KEY, None), row=row)
            for name, value in entries.items():
                field, linked = _linked(name, value)
                if field in parts:
                    raise DecodeError("is there twice")
                parts[field] = value if linked is None else self._read_file(linked)
        except DecodeError as error:
            raise RecordError(Fault(self.name, key, row, field, str(error))) from error
        return RawRecord(key, parts)

    def identity(self) -> str:
        """Of the file's name without its folder, and its content (not that of the files)."""
        return f"{os.path.basename(self.name)} {self._bytes.size} {self._digest}"

    def _find_lines(self) -> tuple[np.ndarray, np.ndarray, str]:
        """Where the lines begin that are not blank, how long they are, and a digest of it all."""
        starts, sizes = [], []
        digest = hashlib.blake2b(digest_size=8)
        read, size = self._bytes.reader(), self._bytes.size
        begin, blank = 0, True
        for offset in range(0, size, BLOCK):
            block = read(offset, min(BLOCK, size - offset))
            digest.update(block)
            place = 0
            while (end := block.find(b"\n", place)) >= 0:
                if not (blank and _is_blank(block[place:end], first=offset + place == 0)):
                    starts.append(begin)
                    sizes.append(offset + end - begin)
                begin, blank, place = offset + end + 1, True, end + 1
            blank = blank and _is_blank(block[place:], first=offset + place == 0)
        if not blank:
            starts.append(begin)
            sizes.append(size - begin)
        return np.array(starts, np.int64), np.array(sizes, np.int64), digest.hexdigest()

    def _object(self, row: int) -> dict[str, Any]:
        start, size = int(self._starts[row]), int(self._sizes[row])
        if size > self.limits.member_bytes:
            most = f"at most {self.limits.member_bytes} (Limits.member_bytes)"
            raise DecodeError(f"the line has {size} bytes, {most}")
        line = self._bytes.read(start, size)
        line = line.removeprefix(BOM) if start == 0 else line
        found = parse_json(line, depth=self.limits.json_depth)
        if not isinstance(found, dict):
            raise DecodeError(f"expected a JSON object, got {type(found).__name__}")
        return found

    def _read_file(self, path: str) -> bytes:
        return read_beside(path, folder=os.path.dirname(self.name), limits=self.limits)


class JsonLinesSource(FilesSource):
    r"""The records of JSON lines, as `fields` reads them; see `JsonLinesShard` for the parts.

    The arguments and errors are those of `FilesSource`.

    Example:
      >>> import pathlib, tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "list.jsonl")
      ...     _ = path.write_text('{"text": "a", "score": 1}\n{"text": "b", "score": 2}\n')
      ...     source = JsonLinesSource(path)
      ...     len(source), float(source[1].data["score"])
      (2, 2.0)
    """

    open_shard = JsonLinesShard
    suffixes = (".jsonl", ".ndjson")


def _linked(name: str, value: Any) -> tuple[str, str | None]:
    """The part that an entry of an object is, and the file that it stands for."""
    if isinstance(value, dict) and isinstance(value.get("path"), str) and set(value) <= FILE:
        return name, value["path"] if value.get("bytes") is None else None
    if isinstance(value, str) and name == "file_name":
        return "file", value
    if isinstance(value, str) and name.endswith(NAMES_FILE) and name != NAMES_FILE:
        return name.removesuffix(NAMES_FILE), value
    return name, None


def _is_blank(text: bytes, *, first: bool) -> bool:
    return not (text.removeprefix(BOM) if first else text).strip()
