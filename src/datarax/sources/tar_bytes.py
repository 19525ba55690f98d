"""Bytes of a file at an offset, for many threads at once and for any number of files."""

import os
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from datarax.sources.paths import file_version, is_url, remote
from datarax.sources.watch import Watch

MOST_KEPT_OPEN = 256  # files; those beyond are opened for each read, as a process may hold ~1000
REMOTE_BLOCK = 2**22

_kept: "weakref.WeakSet[LocalBytes]" = weakref.WeakSet()


class Bytes(Protocol):
    """A file of which one version is read."""

    @property
    def path(self) -> str:
        """Or URL."""

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def version(self) -> str:
        """As `file_version` says it."""

    def read(self, offset: int, size: int) -> bytes:
        """Exactly so many bytes.

        Raises:
          OSError: if they cannot be read, or the file is no longer of that version, which is asked
            once a second.
        """

    def reader(self) -> Callable[[int, int], bytes]:
        """`read` for one thread that goes through the file from front to back."""


def open_bytes(path: str) -> Bytes:
    """The bytes of a local file or a URL, as it is now.

    Raises:
      OSError: if there is no such file.
      ImportError: for a URL without fsspec.
    """
    return RemoteBytes(path) if is_url(path) else LocalBytes(path)


class LocalBytes:
    """A local file, read at offsets; it keeps no position, so threads do not meet."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.size, self.version = file_version(path)
        self._watch = Watch()
        self._keep_open()

    def read(self, offset: int, size: int) -> bytes:
        """As `Bytes.read`."""
        if (kept := self._handle) is not None:
            if time.monotonic() >= self._watch.due:
                self._watch.ask(self._check_version, kept)
            piece = os.pread(kept, size, offset)
            return piece if len(piece) == size else self._read(kept, offset, size)
        handle = self._open()
        try:
            return self._read(handle, offset, size)
        finally:
            os.close(handle)

    def reader(self) -> Callable[[int, int], bytes]:
        """As `Bytes.reader`."""
        return self.read

    def _keep_open(self) -> None:
        self._handle: int | None = None
        if len(_kept) < MOST_KEPT_OPEN:
            self._handle = self._open()
            weakref.finalize(self, os.close, self._handle)
            _kept.add(self)

    def _open(self) -> int:
        handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._check_version(handle)
        except OSError:
            os.close(handle)
            raise
        return handle

    def _check_version(self, handle: int) -> None:
        status = os.fstat(handle)
        if (status.st_size, str(status.st_mtime_ns)) != (self.size, self.version):
            raise OSError(f"{self.path} has changed since it was opened first")

    def _read(self, handle: int, offset: int, size: int) -> bytes:
        if time.monotonic() >= self._watch.due:
            self._watch.ask(self._check_version, handle)
        piece = os.pread(handle, size, offset)
        if len(piece) == size:
            return piece
        pieces = [piece]
        while piece and size > sum(map(len, pieces)):  # pread gives at most 2 GiB
            done = sum(map(len, pieces))
            piece = os.pread(handle, size - done, offset + done)
            pieces.append(piece)
        if sum(map(len, pieces)) != size:
            raise OSError(f"{self.path} has become shorter than {offset + size} bytes")
        return b"".join(pieces)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "size": self.size, "version": self.version}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._watch = Watch()
        self._keep_open()


class RemoteBytes:
    """A file behind a URL; each read is a request of its own."""

    def __init__(self, url: str) -> None:
        self.path = url
        self.size, self.version = file_version(url)

    def read(self, offset: int, size: int) -> bytes:
        """As `Bytes.read`; that the file is the same is not asked again."""
        if size == 0:
            return b""
        filesystem, inner = remote(self.path)
        data = bytes(filesystem.cat_file(inner, start=offset, end=offset + size))
        if len(data) != size:
            raise OSError(f"{self.path} gives {len(data)} bytes at byte {offset}, not {size}")
        return data

    def reader(self) -> Callable[[int, int], bytes]:
        """As `Bytes.reader`, in large blocks."""
        start, block = 0, b""

        def read(offset: int, size: int) -> bytes:
            nonlocal start, block
            if not start <= offset <= offset + size <= start + len(block):
                start = offset
                block = self.read(offset, min(max(size, REMOTE_BLOCK), self.size - offset))
            return block[offset - start : offset - start + size]

        return read
