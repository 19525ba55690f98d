"""Shards to convert, written with tarfile alone."""

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path


def tar_file(path: Path, records: Iterable[tuple[str, Mapping[str, bytes]]]) -> Path:
    """A tar with members that have times and owners, as others write them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, parts in records:
            for part, data in parts.items():
                member = tarfile.TarInfo(f"{key}.{part}")
                member.size, member.mtime, member.uid = len(data), 1_700_000_000.5, 1000
                tar.addfile(member, io.BytesIO(data))
    return path


def members(path: Path) -> list[tuple[str, bytes]]:
    """Names and bytes of a tar, in order, as tarfile reads them."""
    with tarfile.open(path) as tar:
        return [(member.name, tar.extractfile(member).read()) for member in tar]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a directory, but for what readers keep beside tars."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if not path.name.endswith(".datarax-index")
    }


SAMPLES = [
    (
        f"{place % 2}/{'long' * 40 if place == 3 else 'größe'}-{place:03}",
        {"png": bytes([place]) * place, "seg.png": b"\x00" * 5, "json": b'{"a": 1}'}
        | ({"txt": "ein Mañana\n".encode()} if place % 3 else {}),
    )
    for place in range(25)
]
