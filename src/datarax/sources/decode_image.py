"""Images as uint8 of one size."""

import dataclasses
import importlib.util
import io
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import numpy as np
from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin

from datarax.sources.decoder import flat_bytes
from datarax.sources.limits import Limits
from datarax.sources.record import DecodeError

Mode = Literal["RGB", "L", "RGBA"]
Resample = Literal["bicubic", "bilinear", "nearest"]
CHANNELS = {"RGB": 3, "RGBA": 4}
# without EPS and its kind, for which Pillow would start another program
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
PNG = b"\x89PNG\r\n\x1a\n"
ORIENTATION = 0x0112
START_OF_SCAN = 0xDA
TILE_WIDTH, TILE_LENGTH = 322, 323
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Up to so many bytes are copied under the interpreter's lock. NumPy would let go of it, and to wait
# for it again takes longer than the copy.
HELD_BYTES = 2**16
HAS_SIMPLEJPEG = importlib.util.find_spec("simplejpeg") is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageDecoder:
    """Still images (the first frame of others), turned upright as EXIF says, and resized.

    JPEG is decoded by simplejpeg where it is installed, else by Pillow; a JPEG that is much larger
    than `size` is scaled while it is decoded. Transparency is dropped unless `mode` is "RGBA".
    16-bit grey keeps its high byte.

    Attributes:
      size: height and width; the aspect ratio is not kept.
      mode: "RGB" and "RGBA" give `[height, width, channels]`, "L" gives `[height, width]`.
      resample: "bicubic" or "bilinear", both with antialiasing, or "nearest", for labels.
    """

    size: tuple[int, int]
    mode: Mode = "RGB"
    resample: Resample = "bicubic"

    def __post_init__(self) -> None:
        whole = isinstance(self.size, tuple) and all(type(n) is int and n > 0 for n in self.size)
        if not whole or len(self.size) != 2:
            raise ValueError(f"size must be [height, width], got {self.size!r}")
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {list(get_args(Mode))}, got {self.mode!r}")
        if self.resample not in get_args(Resample):
            options = list(get_args(Resample))
            raise ValueError(f"resample must be one of {options}, got {self.resample!r}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the field."""
        return self.size if self.mode == "L" else (*self.size, CHANNELS[self.mode])

    def decode(self, part: Any, *, limits: Limits) -> tuple[np.ndarray, ...]:
        """The image, uint8.

        Raises:
          DecodeError: if it is none, damaged, or has more pixels than the limits allow.
        """
        return (np.asarray(self._read(part, limits)),)

    def row_writer(
        self, columns: Sequence[np.ndarray], *, limits: Limits
    ) -> Callable[[int, Any], None]:
        """As `decode`, into a row of the one array: a JPEG of its size without a copy."""
        (column,) = columns
        flat, size = flat_bytes(column), math.prod(column.shape[1:])

        def write(row: int, part: Any) -> None:
            made = self._read(part, limits, into=(column, row))
            if not isinstance(made, Image.Image):
                if not np.may_share_memory(made, column):
                    column[row] = made
            elif size > HELD_BYTES:
                column[row] = np.frombuffer(made.tobytes(), np.uint8).reshape(self.shape)
            else:
                flat[row * size : (row + 1) * size] = made.tobytes()

        return write

    def default(self, value: Any) -> tuple[np.ndarray, ...]:
        """One brightness, 0 to 255, everywhere."""
        if type(value) is not int or not 0 <= value <= 255:
            raise DecodeError(f"expected a brightness of 0 to 255, got {value!r}")
        return (np.full(self.shape, value, np.uint8),)

    def spec(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shape and dtype."""
        return (jax.ShapeDtypeStruct(self.shape, np.uint8),)

    def _read(
        self, part: Any, limits: Limits, *, into: tuple[np.ndarray, int] | None = None
    ) -> Image.Image | np.ndarray:
        """Of the right size and mode; a row of `into` itself if the pixels are there already."""
        if not isinstance(part, bytes):
            raise DecodeError(f"expected the bytes of an image, got {type(part).__name__}")
        try:
            made = self._jpeg(part, limits, into) if _is_plain_jpeg(part) else None
            return self._resized(self._open(part, limits)) if made is None else made
        except (DecodeError, MemoryError):
            raise
        except Exception as error:  # damaged bytes raise whatever: OSError, SyntaxError, KeyError..
            reason = " ".join(str(error).split())[:200]
            if isinstance(error, Image.UnidentifiedImageError):
                reason = f"expected one of {', '.join(FORMATS)}"
            raise DecodeError(f"not an image that can be read: {reason}") from error

    def _open(self, data: bytes, limits: Limits) -> Image.Image:
        """By Pillow: upright and in the right mode, of any size."""
        # a PNG of 64 x 64 takes 4 % less than by `Image.open`, which checks a limit of its own
        if data[:8] == PNG and limits.pixels <= (Image.MAX_IMAGE_PIXELS or 0):
            image: Image.Image = PngImagePlugin.PngImageFile(io.BytesIO(data))
            _check_pixels(image.size, limits)
        else:
            image = self._recognised(data, limits)
        image.load()
        if image.info:  # a PNG of pixels alone has none
            image = _upright(image, _orientation(image))
        return _convert(image, self.mode)

    def _recognised(self, data: bytes, limits: Limits) -> ImageFile.ImageFile:
        """An image of any format, not yet decoded."""
        if data[:4] == b"RIFF":
            _check_pixels(_webp_size(data), limits)  # Pillow makes its canvas at once
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_pixels(image.size, limits)
        if isinstance(image, TiffImagePlugin.TiffImageFile):  # libtiff reads whole tiles
            tile = image.tag_v2.get(TILE_WIDTH, 0), image.tag_v2.get(TILE_LENGTH, 0)
            _check_pixels(tile, limits)
        if image.format in ("JPEG", "MPO") and self.resample != "nearest":
            side = max(self.size)  # it may yet be turned
            image.draft("L" if self.mode == "L" else "RGB", (side, side))
        return image

    def _jpeg(
        self, data: bytes, limits: Limits, into: tuple[np.ndarray, int] | None
    ) -> Image.Image | np.ndarray | None:
        """By simplejpeg; `None` where Pillow is to judge: CMYK, and whatever it complains of."""
        import simplejpeg

        grey = self.mode == "L"
        height, width = (0, 0) if self.resample == "nearest" else self.size
        try:
            rows, columns, space, _ = simplejpeg.decode_jpeg_header(data)
            _check_pixels((columns, rows), limits)
            if space not in ("YCbCr", "Gray"):
                return None
            turn = _jpeg_orientation(data)
            if turn > 4:
                height, width = width, height
            fits = turn == 1 and (rows, columns) == self.size and self.mode != "RGBA"
            place = into[0][into[1]] if fits and into is not None else None
            pixels: np.ndarray = simplejpeg.decode_jpeg(
                data,
                "GRAY" if grey else "RGB",
                min_height=height,
                min_width=width,
                min_factor=1,
                buffer=place,
            )
        except DecodeError:
            raise
        except ValueError:
            return None
        if place is not None:
            return place
        if grey:
            pixels = pixels[:, :, 0]
        if turn == 1 and pixels.shape == self.shape:
            return pixels
        return self._resized(_convert(_upright(Image.fromarray(pixels), turn), self.mode))

    def _resized(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        if image.size == (width, height):
            return image
        return image.resize((width, height), Image.Resampling[self.resample.upper()])


def _is_plain_jpeg(data: bytes) -> bool:
    return HAS_SIMPLEJPEG and data[:3] == b"\xff\xd8\xff"


def _check_pixels(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width * height > limits.pixels:
        raise DecodeError(
            f"an image of {width} x {height} pixels, at most {limits.pixels} (Limits.pixels)"
        )


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height from the header of a WebP file; (0, 0) if it is none."""
    kind = data[12:16]
    if kind == b"VP8X":
        return _little(data[24:27]) + 1, _little(data[27:30]) + 1
    if kind == b"VP8L":
        bits = _little(data[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return _little(data[26:28]) & 0x3FFF, _little(data[28:30]) & 0x3FFF
    return 0, 0


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _jpeg_orientation(data: bytes) -> int:
    """Of a JPEG: Pillow only reads its header where it has EXIF at all."""
    place = 2
    while place + 10 < len(data) and data[place] == 0xFF and data[place + 1] != START_OF_SCAN:
        if data[place + 4 : place + 10] == b"Exif\0\0":
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
                return _orientation(image)
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return 1


def _orientation(image: Image.Image) -> int:
    """As EXIF says; upright where EXIF is damaged, since the pixels are not."""
    try:
        turn = image.getexif().get(ORIENTATION, 1)
    except MemoryError:
        raise
    except Exception:  # whatever Pillow meets in damaged EXIF
        return 1
    return turn if turn in UPRIGHT else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == mode:
        return image
    if image.mode.startswith("I;16"):  # Pillow would clip it at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise DecodeError(f"an image of {image.mode!r} pixels, 32 bits each: expected 8 or 16")
    return image.convert(mode)
