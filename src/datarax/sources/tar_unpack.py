"""Compressed tars, decompressed once to the cache: there is no random access into them.

A shard that does not decompress to its end and to its checksum is not read at all: a changed byte
may put one record's bytes in another's place without any sign but that.
"""

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from datarax.sources.cache import cache_directory, write_atomically
from datarax.sources.paths import file_version, is_url, open_binary
from datarax.sources.record import DecodeError

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
PIECE = 2**20
ZSTD_PIECE = 2**12  # compressed; a piece may become 32,768 times as much, at once


def compression_of(start: bytes) -> bytes | None:
    """`GZIP` or `ZSTD`, from a file's first bytes; `None` for others."""
    return next((magic for magic in (GZIP, ZSTD) if start.startswith(magic)), None)


def unpack(path: str, *, limit: int) -> str:
    """The path of the decompressed content of a gzip or zstd file, in the cache directory.

    Raises:
      DecodeError: if it is more than `limit` bytes, or is damaged; nothing is kept then.
      OSError: if it cannot be read, or the cache cannot be written.
      ImportError: for zstd without zstandard.
    """
    size, version = file_version(path)
    whole = path if is_url(path) else os.path.abspath(path)
    mark = hashlib.blake2b(f"{size} {version} ".encode() + os.fsencode(whole), digest_size=16)
    target = cache_directory() / "tar" / f"{mark.hexdigest()}.tar"
    if not target.is_file():
        _unpack_to(target, path, limit=limit)
    elif target.stat().st_size > limit:
        raise _beyond(limit)
    return str(target)


def _unpack_to(target: Path, path: str, *, limit: int) -> None:
    with open_binary(path) as packed:
        kind = compression_of(packed.read(4))
        packed.seek(0)
        pieces = _gzip_pieces(packed) if kind == GZIP else _zstd_pieces(packed, path)

        def write(file: BinaryIO) -> None:
            total = 0
            for piece in pieces:
                total += len(piece)
                if total > limit:
                    raise _beyond(limit)
                file.write(piece)
            file.flush()
            os.utime(file.fileno(), ns=(0, 0))  # two processes may both write it: it is the same

        write_atomically(target, write)


def _gzip_pieces(packed: BinaryIO) -> Iterator[bytes]:
    try:
        with gzip.GzipFile(fileobj=packed) as stream:
            while piece := stream.read(PIECE):
                yield piece
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DecodeError(f"its gzip stream is damaged or cut: {error}") from error


def _zstd_pieces(packed: BinaryIO, path: str) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError as error:
        raise ImportError(f"to read {path}: pip install 'datarax[zstd]'") from error
    frame = None
    while piece := packed.read(ZSTD_PIECE):
        while piece:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            try:
                yield frame.decompress(piece)
            except zstandard.ZstdError as error:
                raise DecodeError(f"its zstd stream is damaged: {error}") from error
            piece = b""
            if frame.eof:
                piece, frame = frame.unused_data, None
    if frame is not None:
        raise DecodeError("its zstd stream is cut")


def _beyond(limit: int) -> DecodeError:
    return DecodeError(f"it decompresses to more than {limit} bytes (Limits.unpacked_bytes)")
