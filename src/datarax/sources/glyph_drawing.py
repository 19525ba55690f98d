"""Characters drawn from the fonts that matplotlib ships: pictures, outlines and names.

Pillow rasterises, matplotlib reads the character maps and the contours; both read the same files.
"""

import hashlib
import unicodedata
from pathlib import Path

import matplotlib as mpl
import numpy as np
import PIL
from matplotlib.ft2font import FT2Font, LoadFlags
from matplotlib.path import Path as Contours
from PIL import Image, ImageDraw, ImageFont, features

FACES = {
    "image": "DejaVuSans.ttf",
    "image_serif": "DejaVuSerif.ttf",
    "image_mono": "DejaVuSansMono.ttf",
    "image_bold": "DejaVuSans-Bold.ttf",
}
IMAGE_SIZE = 32
OUTLINE_POINTS = 64
NAME_BYTES = 88

DRAWING_VERSION = 1
EM = 24
BASELINE = 26
MIDDLE = 0.35  # of the line, in em above the baseline


def font_path(field: str) -> Path:
    """The font file that draws `field`, a key of `FACES`."""
    return Path(mpl.get_data_path()) / "fonts" / "ttf" / FACES[field]


def fingerprint() -> str:
    """16 hex digits that change with the fonts, the rasteriser, the Unicode names or this code."""
    digest = hashlib.blake2b(digest_size=8)
    versions = (features.version("freetype2"), PIL.__version__, unicodedata.unidata_version)
    for part in (DRAWING_VERSION, IMAGE_SIZE, OUTLINE_POINTS, NAME_BYTES, EM, BASELINE, *versions):
        digest.update(f"{part};".encode())
    for field in FACES:
        digest.update(font_path(field).read_bytes())
    return digest.hexdigest()


def code_points(field: str) -> list[int]:
    """The named characters that the face of `field` maps to a glyph, ascending."""
    charmap = FT2Font(str(font_path(field))).get_charmap()
    return sorted(code for code in charmap if unicodedata.name(chr(code), None) is not None)


def encode_name(text: str) -> np.ndarray:
    """`text` in lower case as UTF-8 bytes, cut at 88 and padded with zeros: uint8 [88].

    No Unicode name is longer.
    """
    encoded = text.lower().encode()[:NAME_BYTES]
    return np.frombuffer(encoded.ljust(NAME_BYTES, b"\0"), np.uint8).copy()


def draw(font: ImageFont.FreeTypeFont, character: str) -> np.ndarray:
    """One character in white on black: uint8 [32, 32].

    All share one baseline and one size, 24 pixels an em, and stand in the middle of their advance
    width (combining marks, which have none: of their ink). A character that would leave the
    picture is put in its middle, smaller if it must be.
    """
    left, top, right, bottom = font.getbbox(character, anchor="ls")
    advance = font.getlength(character)
    x, y = round((IMAGE_SIZE - (advance or left + right)) / 2), BASELINE
    if min(x + left, y + top) < 0 or max(x + right, y + bottom) > IMAGE_SIZE:
        scale = (IMAGE_SIZE - 2) / max(right - left, bottom - top)
        font = font.font_variant(size=EM * min(scale, 1.0))
        left, top, right, bottom = font.getbbox(character, anchor="ls")
        x, y = (
            round((IMAGE_SIZE - low - high) / 2) for low, high in ((left, right), (top, bottom))
        )
    picture = Image.new("L", (IMAGE_SIZE, IMAGE_SIZE))
    ImageDraw.Draw(picture).text((x, y), character, fill=255, font=font, anchor="ls")
    return np.asarray(picture)


def draw_all(field: str, codes: list[int]) -> np.ndarray:
    """The pictures of `codes` in the face of `field`: uint8 [n, 32, 32]."""
    font = ImageFont.truetype(font_path(field), EM, layout_engine=ImageFont.Layout.BASIC)
    pictures = np.zeros((len(codes), IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    for row, code in enumerate(codes):
        pictures[row] = draw(font, chr(code))
    return pictures


def outline(font: FT2Font, code: int) -> np.ndarray | None:
    """64 points at equal distances along the contours of a glyph: float32 [64, 3].

    Columns: x from the middle of the advance width (of the ink where that is 0) and y from the
    middle of the line, both in em, and 1.0 where a contour starts (else 0.0). Each contour gets
    points by its length, at least one; of more than 64 contours the longest are kept. `None` if
    the glyph has no contour.
    """
    glyph = font.load_char(code, flags=LoadFlags.NO_SCALE)
    vertices, codes = font.get_path()
    if len(vertices) == 0:
        return None
    em = font.units_per_EM / 64  # matplotlib divides the unscaled units by 64
    contours = Contours(vertices / em, codes).to_polygons(closed_only=False)
    polygons = [polygon for polygon in map(np.asarray, contours) if len(polygon) > 1]
    lengths = np.array([np.hypot(*np.diff(polygon, axis=0).T).sum() for polygon in polygons])
    kept = np.sort(np.argsort(-lengths, kind="stable")[:OUTLINE_POINTS])
    counts = share_points(lengths[kept])
    parts = [resample(polygons[index], count) for index, count in zip(kept, counts, strict=True)]
    points = np.concatenate(parts)
    advance = glyph.horiAdvance / font.units_per_EM
    points[:, 0] -= (advance or points[:, 0].min() + points[:, 0].max()) / 2
    points[:, 1] -= MIDDLE
    return points.astype(np.float32)


def share_points(lengths: np.ndarray) -> np.ndarray:
    """64 points shared out by length, at least one each, the rest by largest remainder."""
    spare = OUTLINE_POINTS - len(lengths)
    weights = lengths + np.finfo(float).eps
    ideal = spare * weights / weights.sum()
    counts = np.floor(ideal).astype(int)
    order = np.argsort(counts - ideal, kind="stable")
    counts[order[: spare - counts.sum()]] += 1
    return counts + 1


def resample(polygon: np.ndarray, count: int) -> np.ndarray:
    """`count` points at equal arc lengths from the first vertex: [count, 3], the flag last."""
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(polygon, axis=0).T))])
    wanted = along[-1] * np.arange(count) / count
    x, y = (np.interp(wanted, along, polygon[:, axis]) for axis in (0, 1))
    return np.stack([x, y, np.arange(count) == 0], axis=1)
