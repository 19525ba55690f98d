"""Records of a folder: files that share their name up to the first dot."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from datarax.sources.beside import read_file
from datarax.sources.files import FilesSource
from datarax.sources.limits import Limits
from datarax.sources.paths import INDEX_SUFFIX
from datarax.sources.record import DecodeError, Fault, RawRecord, RecordError


class FolderShard:
    """The files of a folder and of those below it, by key, in the order of the keys.

    The key is a file's path below the folder up to the first dot of its name, the suffix what
    follows that dot, in lower case: as in a tar. The files are listed once.

    What is not as it should be:

    - Names that begin with a dot, and files without a suffix: passed over.
    - A link that leads out of the folder, or to nothing; what is no file: a fault. Folders behind
      links are not entered.
    - Two suffixes that differ in case alone, a file that is gone, or has more than
      `limits.member_bytes`: its record raises.

    Args:
      path: a local folder.
      limits: on files; `None` is the usual ones.

    Raises:
      OSError: if the folder cannot be read.
    """

    def __init__(self, path: str | Path, *, limits: Limits | None = None) -> None:
        self.name = os.fspath(path)
        self.limits = Limits() if limits is None else limits
        self._faults: list[Fault] = []
        files = self._files()
        self._digest = _digest_of(self.name, files)
        found: dict[str, dict[str, list[str]]] = {}
        for below in sorted(files):
            folder, name = os.path.split(below)
            stem, _, suffix = name.partition(".")
            key = f"{folder}/{stem}" if folder else stem
            found.setdefault(key, {}).setdefault(suffix.lower(), []).append(below)
        self._keys = sorted(found)
        self._members = [found[key] for key in self._keys]

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Links that lead out of the folder, and what is no file."""
        return tuple(self._faults)

    def read(self, row: int) -> RawRecord:
        """Record `row`: the bytes of its files by suffix.

        Raises:
          IndexError: if there is no such record.
          RecordError: if a file is gone, too large, or there twice.
          OSError: if a file cannot be read.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"record {row} of {len(self)} in {self.name}")
        parts = {}
        for suffix, files in self._members[row].items():
            if len(files) > 1:
                raise self._refusal(row, suffix, f"is there twice: {files}")
            parts[suffix] = self._read_file(row, suffix, files[0])
        return RawRecord(self._keys[row], parts)

    def identity(self) -> str:
        """Of the folder's name, and the names and sizes of its files."""
        return f"{os.path.basename(os.path.normpath(self.name))} {self._digest}"

    def _files(self) -> list[str]:
        base = os.path.realpath(self.name)
        found = []
        for folder, below, names in os.walk(self.name, onerror=_raise):
            below[:] = sorted(name for name in below if not name.startswith("."))
            for name in sorted(names):
                if name.startswith(".") or name.endswith(INDEX_SUFFIX) or "." not in name:
                    continue
                path = os.path.join(folder, name)
                relative = os.path.relpath(path, self.name).replace(os.sep, "/")
                real = os.path.realpath(path)
                if os.path.commonpath([base, real]) != base:
                    self._lose(relative, "is a link that leads out of the folder")
                elif not os.path.isfile(real):
                    self._lose(relative, "is no file")
                else:
                    found.append(relative)
        return found

    def _lose(self, name: str, reason: str) -> None:
        self._faults.append(Fault(self.name, name, reason=reason))

    def _read_file(self, row: int, suffix: str, below: str) -> bytes:
        base = os.path.realpath(self.name)
        path = os.path.realpath(os.path.join(base, below))
        if os.path.commonpath([base, path]) != base:  # a link that was turned since
            raise self._refusal(row, suffix, "leads out of the folder")
        try:
            return read_file(path, limits=self.limits)
        except DecodeError as error:
            raise self._refusal(row, suffix, str(error)) from error
        except FileNotFoundError as error:
            raise self._refusal(row, suffix, "is gone") from error

    def _refusal(self, row: int, suffix: str, reason: str) -> RecordError:
        return RecordError(Fault(self.name, self._keys[row], row, suffix, f"the file {reason}"))


class FolderSource(FilesSource):
    """The records of local folders, as `fields` reads them; see `FolderShard` for what is a record.

    The arguments and errors are those of `FilesSource`, but paths are folders alone.

    Example:
      >>> import pathlib, tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     for name, text in [("a.txt", "one"), ("a.json", '{"n": 1}'), ("b.txt", "two")]:
      ...         _ = pathlib.Path(folder, name).write_text(text)
      ...     source = FolderSource(folder)
      ...     [sorted(element.data) for element in source]
      [['caption', 'caption_mask', 'n'], ['caption', 'caption_mask']]
    """

    open_shard = FolderShard
    suffixes = ()

    @classmethod
    def expand(cls, paths: str | Path | Iterable[str | Path]) -> list[str]:
        """The folders themselves.

        Raises:
          ValueError: if a path is none.
        """
        names = [os.fspath(p) for p in ([paths] if isinstance(paths, str | Path) else paths)]
        if wrong := [name for name in names if not os.path.isdir(name)]:
            raise ValueError(f"expected folders, got {wrong}")
        return names


def _digest_of(folder: str, files: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(files):
        size = os.path.getsize(os.path.join(folder, name))
        digest.update(os.fsencode(name) + f" {size};".encode())
    return digest.hexdigest()


def _raise(error: OSError) -> None:
    raise error
