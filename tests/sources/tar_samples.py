"""Tars made with the standard library, for tests."""

import io
import os
import tarfile

OLD = 10**18  # ns: an age at which an index is kept


def tar_bytes(members, *, format=tarfile.USTAR_FORMAT):
    """A tar of `(name, data)` pairs; a name may be a `TarInfo`."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format, errors="surrogateescape") as tar:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def special(name, kind, *, linkname=""):
    """A member that is no file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linkname
    return info, b""


def write_old(path, data):
    """Write a file that was last changed long ago; returns its path."""
    path.write_bytes(data)
    os.utime(path, ns=(OLD, OLD))
    return path


def numbered(count, *, parts=("txt", "json", "seg.png")):
    """Records that say their number in every part, as members."""
    return [
        (f"{row:04}.{part}", f"{row:04} {part}".encode() * (1 + row % 3))
        for row in range(count)
        for part in parts
    ]
