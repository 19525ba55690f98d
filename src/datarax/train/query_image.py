"""A picture of one character from anywhere, drawn again as the data set draws."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from datarax.sources.glyph_drawing import BASELINE, EM, IMAGE_SIZE, MIDDLE

_LARGEST_SIDE = 512
_INK = 0.25  # of the contrast: fainter is paper
_FAINTEST = 24 / 255

# The size of a character on its line is not to be seen in a picture of it alone, so several are
# tried: the larger side in pixels, from a mark to what fills the line.
_SIZES = (8, 12, 15, 18, 22, 26)


def read_image(path: Path) -> np.ndarray:
    """The character in a PNG or JPEG file, white on black and cropped: float32 [h, w] in [0, 1].

    Raises:
      ValueError: if it is not a picture, too large a one, or empty.
      OSError: if it cannot be read.
    """
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file, formats=("PNG", "JPEG")) as opened:
                grey = _grey(opened)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ValueError(
                f"{path}: expected at most {Image.MAX_IMAGE_PIXELS} pixels, got a larger picture"
            ) from error
        except Exception as error:  # decoders raise anything for broken bytes
            raise ValueError(f"{path} is not a PNG or JPEG picture that can be read") from error
    ink = _ink(grey)
    if ink is None:
        raise ValueError(f"{path} shows no character: it is (almost) one flat colour")
    return ink


def placements(ink: np.ndarray) -> np.ndarray:
    """`ink` in some sizes on the baseline, below it and amid the line: uint8 [c, 32, 32].

    What has the data set's size already, 32 by 32, is taken as it is: c = 1.
    """
    if ink.shape == (IMAGE_SIZE, IMAGE_SIZE):
        return np.round(ink * 255).astype(np.uint8)[None]
    picture = Image.fromarray(np.round(ink * 255).astype(np.uint8))
    drawn = []
    for size in _SIZES:
        scale = size / max(ink.shape)
        height, width = (max(1, round(side * scale)) for side in ink.shape)
        small = np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))
        left = (IMAGE_SIZE - width) // 2
        middle = round(BASELINE - MIDDLE * EM - height / 2)
        for top in {BASELINE - height, BASELINE + EM // 5 - height, middle}:
            top = min(max(top, 0), IMAGE_SIZE - height)
            canvas = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
            canvas[top : top + height, left : left + width] = small
            drawn.append(canvas)
    return np.unique(np.stack(drawn), axis=0)


def _grey(opened: Image.Image) -> np.ndarray:
    """Brightness, float32 [h, w]; what is transparent becomes the opposite of what is not."""
    picture = ImageOps.exif_transpose(opened)
    if picture.mode.startswith(("I", "F")):  # 16 bits: converting to "L" would clip
        deep = np.asarray(picture, np.float32)
        return deep / max(float(deep.max()), 1.0)
    picture = picture.convert("RGBA")
    picture.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    grey = np.asarray(picture.convert("L"), np.float32) / 255
    alpha = np.asarray(picture.getchannel("A"), np.float32) / 255
    if alpha.min() == 1.0 or alpha.max() == 0.0:
        return grey * alpha
    behind = 1.0 if np.average(grey, weights=alpha) < 0.5 else 0.0
    return grey * alpha + behind * (1 - alpha)


def _ink(grey: np.ndarray) -> np.ndarray | None:
    """What differs from the border's brightness, in [0, 1] and cropped; None where nothing does."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    paper = float(np.median(border))
    contrast = paper - grey if paper > 0.5 else grey - paper
    strongest = float(contrast.max())
    if strongest < _FAINTEST:
        return None
    ink = np.clip(contrast / strongest, 0.0, 1.0).astype(np.float32)
    if paper <= 0.5 and ink.shape == (IMAGE_SIZE, IMAGE_SIZE):
        return ink
    rows, columns = (np.flatnonzero((ink > _INK).any(axis=axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
