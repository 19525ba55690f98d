"""Where made data is kept, and how it gets there whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def cache_directory() -> Path:
    """`$DATARAX_CACHE_DIR`, else `$XDG_CACHE_HOME/datarax`, else `~/.cache/datarax`; may not exist.

    Raises:
      RuntimeError: if neither variable is set and there is no home directory.
    """
    chosen = os.environ.get("DATARAX_CACHE_DIR")
    if chosen:
        return Path(chosen)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "datarax"


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Let `write` fill a file that appears at `path` complete, or not at all.

    Args:
      path: the file; one already there is replaced. Its directory is made where it lacks.
      write: is given the open temporary file, which lies in the directory of `path`.

    Raises:
      OSError: if the directory cannot be made or written; nothing is left behind then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
