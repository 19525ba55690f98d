"""What can be said of a part beyond the array that is made of it."""

import dataclasses
import io
from typing import Any

import numpy as np
from PIL import Image

from datarax.sources.decode_array import NumberDecoder, TokensDecoder
from datarax.sources.decode_audio import AudioDecoder
from datarax.sources.decode_image import FORMATS, ImageDecoder
from datarax.sources.decode_text import TextDecoder
from datarax.sources.fields import Decoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """One part that its decoder accepts.

    Attributes:
      sizes: numbers by name, with their unit: "width (pixels)", "seconds".
      format: of its file: "PNG"; empty if it is none.
      text: the whole text of a text field; `None` of another.
      is_cut: whether the part is longer than the field.
    """

    sizes: dict[str, float]
    format: str = ""
    text: str | None = None
    is_cut: bool = False


def measure(decoder: Decoder, part: Any, arrays: tuple[np.ndarray, ...]) -> Measured:
    """What a part is, from its header where it has one.

    Args:
      decoder: of the field.
      part: as the record has it.
      arrays: what `decoder` has made of it: only what is within the limits is looked at.
    """
    match decoder:
        case ImageDecoder():
            return _of_image(part)
        case AudioDecoder():
            return _of_sound(part, decoder)
        case TextDecoder():
            text = text_of(part)
            size = len(text.encode())
            return Measured(
                sizes={"text (bytes)": size}, text=text, is_cut=size > decoder.lengths[-1]
            )
        case TokensDecoder():
            whole = len(part) if isinstance(part, list | np.ndarray) else int(arrays[1].sum())
            return Measured(sizes={"tokens": whole}, is_cut=whole > decoder.lengths[-1])
        case NumberDecoder():
            return Measured(sizes={"value": arrays[0].item()})
    return Measured(sizes={})


def text_of(part: Any) -> str:
    """The whole of a text that `TextDecoder` accepts."""
    if isinstance(part, bytes):
        return part.decode("utf-8")
    return part if isinstance(part, str) else ", ".join(part)


def size_of(part: Any) -> int | None:
    """The bytes of a part that is bytes or text; `None` of another."""
    if isinstance(part, str):
        return len(part.encode("utf-8", "surrogatepass"))
    return len(part) if isinstance(part, bytes | bytearray | memoryview) else None


def _of_image(part: bytes) -> Measured:
    try:
        with Image.open(io.BytesIO(part), formats=FORMATS) as image:
            width, height = image.size
            name = image.format or ""
    except MemoryError:
        raise
    except Exception:  # a JPEG that Pillow refuses and simplejpeg does not
        return Measured(sizes={})
    return Measured(sizes={"width (pixels)": width, "height (pixels)": height}, format=name)


def _of_sound(part: bytes, decoder: AudioDecoder) -> Measured:
    import soundfile

    with soundfile.SoundFile(io.BytesIO(part)) as file:
        seconds = file.frames / file.samplerate
        sizes = {"seconds": seconds, "rate (Hz)": float(file.samplerate)}
        return Measured(sizes=sizes, format=file.format, is_cut=seconds > decoder.longest)
