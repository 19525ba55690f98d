"""Files that appear whole or not at all."""

import os
from pathlib import Path


def write_file(path: Path, content: bytes) -> Path:
    """Writes `content` to `path`, whole or not at all, through a link to its target.

    What is not a regular file (a device, a pipe) is written to, never replaced.

    Returns:
      `path`.

    Raises:
      OSError: naming `path`; nothing is left behind then.
    """
    target = path.resolve()
    try:
        if target.exists() and not target.is_file():
            with target.open("wb") as file:
                file.write(content)
            return path
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        # The name of the temporary file would tell the user nothing; a full disk names none.
        raise OSError(error.errno, error.strerror, str(path)) from error
    return path
