"""The built-in data set `glyphs`: the named characters of DejaVu Sans, drawn, not downloaded."""

import hashlib
import logging
import os
import unicodedata
import zipfile
import zlib
from collections.abc import Mapping
from typing import BinaryIO, Literal, get_args

import jax
import numpy as np
from matplotlib.ft2font import FT2Font

from datarax.core.config import DataraxModuleConfig
from datarax.core.data_source import DataSourceModule
from datarax.core.element_batch import Batch, Element
from datarax.sources import glyph_drawing
from datarax.sources.cache import cache_directory, write_atomically
from datarax.sources.grouping import join_equal
from datarax.sources.memory import MemorySource

logger = logging.getLogger(__name__)

Split = Literal["train", "validation", "test", "all"]
OTHER_FACES = ("image_serif", "image_mono", "image_bold")
SHARES = {"test": 0.2, "validation": 0.1}


def load_glyphs() -> dict[str, np.ndarray]:
    """All characters as stacked arrays, from the cache or drawn anew (some seconds).

    Returns:
      `code` uint32 [n], `name` uint8 [n, 88], `image`, `image_serif`, `image_mono`, `image_bold`
      uint8 [n, 32, 32], `outline` float32 [n, 64, 3], and for each face but the first
      `<face>_present` bool [n] (the rows without it are zeros).

    Raises:
      OSError: if `$DATARAX_CACHE_DIR` is set and cannot be written. The user's own cache directory
        may be unwritable: then nothing is kept, and the next use draws again.
    """
    path = cache_directory() / f"glyphs-{glyph_drawing.fingerprint()}.npz"
    if path.is_file():
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                return dict(stored)
        except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            logger.info("%s is damaged and made anew: %s", path, error)
    arrays = draw_glyphs()

    def write(file: BinaryIO) -> None:
        np.savez_compressed(file, allow_pickle=False, **arrays)

    try:
        write_atomically(path, write)
    except OSError as error:
        if os.environ.get("DATARAX_CACHE_DIR"):
            raise
        logger.info("glyphs are not cached: %s", error)
    return arrays


def draw_glyphs() -> dict[str, np.ndarray]:
    """Draw every named character of DejaVu Sans that leaves ink; see `load_glyphs`."""
    codes = glyph_drawing.code_points("image")
    font = FT2Font(str(glyph_drawing.font_path("image")))
    outlines = {code: glyph_drawing.outline(font, code) for code in codes}
    images = dict(zip(codes, glyph_drawing.draw_all("image", codes), strict=True))
    drawn = {c: o for c, o in outlines.items() if o is not None and images[c].any()}
    codes = list(drawn)
    arrays = {
        "code": np.array(codes, np.uint32),
        "name": np.stack([glyph_drawing.encode_name(unicodedata.name(chr(c))) for c in codes]),
        "image": np.stack([images[code] for code in codes]),
        "outline": np.stack(list(drawn.values())),
    }
    for field in OTHER_FACES:
        known = set(glyph_drawing.code_points(field))
        present = np.array([code in known for code in codes])
        pictures = np.zeros_like(arrays["image"])
        pictures[present] = glyph_drawing.draw_all(field, [c for c in codes if c in known])
        present &= pictures.any(axis=(1, 2))
        arrays |= {field: pictures, f"{field}_present": present}
    return arrays


def split_of(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The split of each record, "train", "validation" or "test": str [n].

    Characters of one shape (the same picture in any face, or the same outline) stay together; the
    groups are ordered by a hash of their first code point and dealt out until each split has its
    share, so the split depends on the data alone.
    """
    groups = same_shape(arrays)
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(int(group), []).append(row)

    def draw_lot(group: int) -> bytes:
        return hashlib.blake2b(b"%d" % arrays["code"][members[group][0]], digest_size=8).digest()

    order = iter(sorted(members, key=draw_lot))
    split = np.full(len(groups), "train", dtype="U10")
    for name, share in SHARES.items():
        taken = 0
        while taken < share * len(groups):
            rows = members[next(order)]
            split[rows] = name
            taken += len(rows)
    return split


def same_shape(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """A group number for each record; records joined by equal drawings share it: int [n]."""
    fields = (*glyph_drawing.FACES, "outline")
    presence = [arrays.get(f"{field}_present") for field in fields]
    return join_equal([arrays[field] for field in fields], presence)


class GlyphsSource(DataSourceModule):
    """Characters with their names, pictures in four faces, and outlines.

    Fields: `name` uint8 [88] (`encode_name`), `image`, `image_serif`, `image_mono`, `image_bold`
    uint8 [32, 32], `outline` float32 [64, 3]; the last three pictures only where that face has the
    character. Metadata: `character` and `name` as text.

    Args:
      split: which characters, in the order of their code points. 70 % train, 10 % validation, 20 %
        test; characters drawn alike are never in different splits.
      limit: only so many of them, spread evenly; `None` is all.

    Raises:
      ValueError: for an unknown split, or a limit below 1.
      OSError: as `load_glyphs`.
    """

    def __init__(self, split: Split = "train", *, limit: int | None = None) -> None:
        super().__init__(DataraxModuleConfig())
        if split not in get_args(Split):
            raise ValueError(f"split must be one of {get_args(Split)}, got {split!r}")
        arrays = load_glyphs()
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        wanted = split_of(arrays) == split
        rows = np.flatnonzero(wanted | (split == "all"))
        if limit is not None and limit < len(rows):
            rows = rows[np.arange(limit) * len(rows) // limit]
        arrays = {name: column[rows] for name, column in arrays.items()}
        characters = [chr(code) for code in arrays["code"]]
        self.split = split
        self.records = MemorySource(
            {name: arrays[name] for name in ("name", *glyph_drawing.FACES, "outline")},
            presence={name: arrays[f"{name}_present"] for name in OTHER_FACES},
            metadata=[{"character": c, "name": unicodedata.name(c).lower()} for c in characters],
        )

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Element:
        return self.records[index]

    def element_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of every field, the optional ones included."""
        return self.records.element_spec()

    def take(self, rows: np.ndarray) -> Batch:
        """Records by number as a batch of NumPy arrays."""
        return self.records.take(rows)

    def fingerprint(self) -> str:
        """16 hex digits that change with any drawing or name."""
        return self.records.fingerprint()
