"""A picture of one character from anywhere, drawn again as the data set draws."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from datarax.sources.glyph_drawing import IMAGE_SIZE

_LARGEST_SIDE = 512
_INK = 0.25  # of the contrast: fainter is paper
_FAINTEST = 24 / 255
_NEAREST = 4
_SHAPE_SIDE = 12
_PROPORTION_WEIGHT = 0.05  # of a squared logarithm, beside the mean square of brightness


def read_image(path: Path) -> np.ndarray:
    """The character in a PNG or JPEG file, white on black: float32 [h, w] in [0, 1].

    It is cropped, unless the file has the size of the data set's pictures.

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


def placements(ink: np.ndarray, like: np.ndarray) -> np.ndarray:
    """`ink` drawn as the pictures most like it in shape are placed: uint8 [c, h, w].

    How large a character is on its line, and how high it stands, cannot be seen in a picture of it
    alone; but what has its shape tends to have its place. Ink that has the size of the pictures
    already is taken as it is: c = 1.

    Args:
      ink: of `read_image`.
      like: known pictures, uint8 [n, h, w], white on black.
    """
    height, width = like.shape[1:]
    picture = Image.fromarray(np.round(ink * 255).astype(np.uint8))
    if ink.shape == (height, width):
        return np.asarray(picture)[None]
    boxes = np.array([_box(image > 255 * _INK) for image in like])
    known = np.stack(
        [
            _shape(Image.fromarray(image[top:bottom, left:right]))
            for image, (top, bottom, left, right) in zip(like, boxes, strict=True)
        ]
    )
    nearest = np.argsort(((known - _shape(picture)) ** 2).sum(axis=1), kind="stable")[:_NEAREST]
    drawn = []
    for top, bottom, left, right in np.unique(boxes[nearest], axis=0):
        scale = max(bottom - top, right - left) / max(ink.shape)
        rows, columns = (max(1, round(side * scale)) for side in ink.shape)
        canvas = Image.new("L", (width, height))
        small = picture.resize((columns, rows), Image.Resampling.LANCZOS)
        canvas.paste(small, ((left + right - columns) // 2, (top + bottom - rows) // 2))
        drawn.append(np.asarray(canvas))
    return np.stack(drawn)


def _box(is_ink: np.ndarray) -> tuple[int, int, int, int]:
    """First row, end of rows, first column, end of columns; of everything if nothing is ink."""
    if not is_ink.any():
        return (0, is_ink.shape[0], 0, is_ink.shape[1])
    rows, columns = (np.flatnonzero(is_ink.any(axis=axis)) for axis in (1, 0))
    return (int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def _shape(picture: Image.Image) -> np.ndarray:
    """Its ink in a square, and its proportions, so that squared distances compare shapes."""
    square = picture.resize((_SHAPE_SIDE, _SHAPE_SIDE), Image.Resampling.BOX)
    flat = np.asarray(square, np.float32).ravel() / (255 * _SHAPE_SIDE)
    proportion = np.sqrt(_PROPORTION_WEIGHT) * np.log(picture.height / picture.width)
    return np.append(flat, np.float32(proportion))


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
    if ink.shape == (IMAGE_SIZE, IMAGE_SIZE):  # drawn as the data set does, it seems
        return ink
    top, bottom, left, right = _box(ink > _INK)
    return ink[top:bottom, left:right]
