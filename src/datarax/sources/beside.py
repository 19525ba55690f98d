"""Files that a record names: read where they lie beside it, and nowhere else."""

import errno
import os
import stat

from datarax.sources.limits import Limits
from datarax.sources.paths import is_url
from datarax.sources.record import DecodeError


def read_beside(path: str, *, folder: str, limits: Limits) -> bytes:
    """The bytes of a file that a record names, which must lie in the shard's folder.

    Raises:
      DecodeError: if it is beyond the folder or the limits, or not there.
      OSError: if it cannot be read.
    """
    if is_url(path) or is_url(folder):
        raise DecodeError(f"{path!r} is a URL, or beside one: only local files are read")
    if "\0" in path or any("\ud800" <= c <= "\udfff" for c in path):
        raise DecodeError(f"{path!r} is no path")
    base = os.path.realpath(folder)
    place = os.path.realpath(os.path.join(base, path))
    if os.path.isabs(path) or os.path.commonpath([base, place]) != base:
        raise DecodeError(f"{path!r} leads out of the folder of the shard, and is not read")
    if not os.path.isfile(place):
        raise DecodeError(f"there is no file {path!r}")
    return read_file(place, limits=limits)


def read_file(path: str, *, limits: Limits) -> bytes:
    """The bytes of a local file.

    Raises:
      DecodeError: if it is no plain file, beyond the limits, or longer than it says.
      OSError: if it cannot be read.
    """
    try:
        with open(path, "rb", opener=_opened_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DecodeError("is no plain file")
            check_size(status.st_size, limits)
            data = file.read(status.st_size + 1)
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.ENXIO):  # a folder, a socket
            raise
        raise DecodeError("is no plain file") from error
    if len(data) > status.st_size:
        raise DecodeError(f"has more bytes than the {status.st_size} that its folder says")
    return data


def _opened_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe must not hold us up


def check_size(size: int, limits: Limits) -> None:
    """Refuse a part beyond `limits.member_bytes`.

    Raises:
      DecodeError: saying how large it is.
    """
    if size > limits.member_bytes:
        raise DecodeError(f"has {size} bytes, at most {limits.member_bytes} (Limits.member_bytes)")
