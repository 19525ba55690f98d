"""The index of a tar as a file: kept beside the tar, or in the cache where that place is read-only.

A magic, a digest of what follows, a line of JSON, and the arrays as they are in memory. It says
which version of the tar it is of. It is a shortcut: whatever is wrong with it, it is made anew.
"""

import hashlib
import json
import logging
import os
import stat
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np

from datarax.sources.cache import cache_directory, write_atomically
from datarax.sources.paths import INDEX_SUFFIX, is_url
from datarax.sources.tar_bytes import Bytes
from datarax.sources.tar_index import TarIndex, check_index

logger = logging.getLogger(__name__)

MAGIC = b"datarax tar 1\n\0\0"
DIGEST = 16
END = 2**14
YOUNG = 2 * 10**9  # ns; the next version of a file so young could bear the same time
DTYPES = {
    "starts": "<i8",
    "offsets": "<i8",
    "sizes": "<i8",
    "suffixes": "<i4",
    "flaws": "|u1",
    "keys": "|u1",
    "key_ends": "<i8",
}


def load_index(content: Bytes) -> TarIndex | None:
    """The kept index of this version of a tar, or `None` if there is none that fits."""
    for place in _places(content.path):
        try:
            if place.is_file() and place.stat().st_size <= 2 * content.size + 2**20:
                data = place.read_bytes()
                return decode_index(data, size=content.size, version=version_of(content))
        except (OSError, ValueError) as error:
            logger.info("the index %s is not used: %s", place, error)
    return None


def save_index(index: TarIndex, content: Bytes) -> Path | None:
    """Keep the index of this version of a tar; returns where, or `None` if it is not kept.

    It is not if no place can be written, or if the tar is so young that a change might not show.
    """
    path = content.path
    if not is_url(path) and 0 <= time.time_ns() - int(content.version) < YOUNG:
        return None
    data = encode_index(index, size=content.size, version=version_of(content))
    for place in _places(path):

        def write(file: BinaryIO) -> None:
            file.write(data)
            if not is_url(path):  # who may read the tar may read its index
                os.fchmod(file.fileno(), stat.S_IMODE(os.stat(path).st_mode) & 0o666)

        try:
            write_atomically(place, write)
            return place
        except OSError as error:
            logger.info("the index of %s is not kept at %s: %s", path, place, error)
    return None


def version_of(content: Bytes) -> str:
    """What `file_version` says, and a digest of both ends of the tar.

    Tars are filled up to 10 KiB, and tools may set the time of a file back: but what changes in
    the middle shows at the end, as it moves there.
    """
    most = min(END, content.size)
    ends = content.read(0, most) + content.read(content.size - most, most)
    return f"{content.version} {hashlib.blake2b(ends, digest_size=8).hexdigest()}"


def encode_index(index: TarIndex, *, size: int, version: str) -> bytes:
    """The bytes of an index file."""
    arrays = [vars(index)[name].astype(dtype) for name, dtype in DTYPES.items()]
    head = {
        "size": size,
        "version": version,
        "lengths": [len(each) for each in arrays],
        "suffix_names": index.suffix_names,
        "lost": index.lost,
        "headers": index.headers,
    }
    body = b"".join([json.dumps(head).encode(), b"\n", *(each.tobytes() for each in arrays)])
    return MAGIC + _digest(body) + body


def decode_index(data: bytes, *, size: int, version: str) -> TarIndex:
    """The index in the bytes of an index file.

    Raises:
      ValueError: if it is damaged, of another version of the tar, or points outside of it.
    """
    start = len(MAGIC) + DIGEST
    if data[: len(MAGIC)] != MAGIC or data[len(MAGIC) : start] != _digest(data[start:]):
        raise ValueError("it is damaged, or of another version of datarax")
    line, _, _ = data[start:].partition(b"\n")
    try:
        head = json.loads(line)
        if (head["size"], head["version"]) != (size, version):
            raise ValueError("the tar has changed")
        arrays = _decode_arrays(data, start + len(line) + 1, lengths=head["lengths"])
        index = TarIndex(
            **arrays,
            suffix_names=tuple(str(name) for name in head["suffix_names"]),
            lost=tuple((str(key), str(reason)) for key, reason in head["lost"]),
            headers=str(head["headers"]),
        )
    except (KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"its head is damaged: {error}") from error
    check_index(index, size)
    return index


def _decode_arrays(data: bytes, start: int, *, lengths: list[int]) -> dict[str, np.ndarray]:
    arrays = {}
    for (name, dtype), length in zip(DTYPES.items(), lengths, strict=True):
        count = int(length)
        if count < 0:
            raise ValueError("an array has a negative length")
        part = np.frombuffer(data, dtype, count, start) if count else np.empty(0, dtype)
        # A copy: aligned, in this machine's order of bytes, and without the rest of the file.
        arrays[name] = part.astype(part.dtype.newbyteorder("="))
        start += part.nbytes
    if start != len(data):
        raise ValueError("there is more in it than its arrays")
    return arrays


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=DIGEST).digest()


def _places(path: str) -> list[Path]:
    """Where an index may lie, in the order in which it is looked for and kept."""
    whole = path if is_url(path) else os.path.abspath(path)
    mark = hashlib.blake2b(os.fsencode(whole), digest_size=8).hexdigest()
    places = [] if is_url(path) else [Path(path + INDEX_SUFFIX)]
    try:
        name = f"{os.path.basename(path)[:100]}-{mark}{INDEX_SUFFIX}"
        places.append(cache_directory() / "tar" / name)
    except RuntimeError as error:
        logger.info("there is no cache directory: %s", error)
    return places
