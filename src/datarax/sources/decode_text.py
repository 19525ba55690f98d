"""Text as bytes of UTF-8."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from datarax.sources.decode_array import as_tuple, check_lengths
from datarax.sources.decoder import flat_bytes
from datarax.sources.limits import Limits
from datarax.sources.record import DecodeError

IS_THERE = bytes([0] + [1] * 255)  # of a byte


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextDecoder:
    r"""UTF-8 as uint8, padded with zeros or cut between two characters, with a mask.

    A list of texts is joined by ", ". Nothing is stripped or normalised.

    Attributes:
      length: of the field, in bytes; or several, of which a batch has the shortest that holds its
        rows.

    Example:
      >>> text, mask = TextDecoder(length=3).decode("né?", limits=Limits())
      >>> bytes(text), mask.tolist()
      (b'n\xc3\xa9', [True, True, True])
    """

    length: int | tuple[int, ...] = 256

    def __post_init__(self) -> None:
        check_lengths("length", self.length)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Those that a batch may have; a record has the last."""
        return as_tuple(self.length)

    def decode(self, part: Any, *, limits: Limits) -> tuple[np.ndarray, ...]:
        """Bytes uint8 `[length]`, and bool `[length]`: which are there.

        Raises:
          DecodeError: if it is no text, no valid UTF-8, or has a NUL, since zeros are padding.
        """
        length = self.lengths[-1]
        padded = _padded(part, length)
        text = np.empty(length, np.uint8)
        text.data[:] = padded
        return text, text.astype(np.bool_)  # since no byte of a text is zero

    def row_writer(
        self, columns: Sequence[np.ndarray], *, limits: Limits
    ) -> Callable[[int, Any], None]:
        """As `decode`, into a row of the two arrays."""
        texts, masks = map(flat_bytes, columns)
        length = columns[0].shape[1]

        def write(row: int, part: Any) -> None:
            padded = _padded(part, length)
            place = slice(row * length, (row + 1) * length)
            texts[place] = padded
            masks[place] = padded.translate(IS_THERE)

        return write

    def default(self, value: Any) -> tuple[np.ndarray, ...]:
        """A text as it is decoded."""
        return self.decode(value, limits=Limits())

    def spec(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shape and dtype of the bytes and of their mask."""
        shape = self.lengths[-1:]
        return (jax.ShapeDtypeStruct(shape, np.uint8), jax.ShapeDtypeStruct(shape, np.bool_))


def _padded(part: Any, length: int) -> bytes:
    data = _utf8(part)
    if (place := data.find(0)) >= 0:
        raise DecodeError(f"text has a NUL at byte {place}: zeros are padding")
    end = len(data)
    if end > length:
        end = length
        while data[end] & 0xC0 == 0x80:  # the character goes on here
            end -= 1
    return data[:end].ljust(length, b"\0")


def _utf8(part: Any) -> bytes:
    """Valid UTF-8, from bytes, a text or a list of texts."""
    try:
        if isinstance(part, bytes):
            str(part, "utf-8")
            return part
        if isinstance(part, list) and part and all(isinstance(text, str) for text in part):
            part = ", ".join(part)
        if isinstance(part, str):
            return part.encode("utf-8")
    except UnicodeError as error:
        place = error.start if isinstance(error, UnicodeDecodeError | UnicodeEncodeError) else 0
        raise DecodeError(f"text is not valid UTF-8 at byte {place}") from error
    raise DecodeError(f"expected text, got {type(part).__name__}")
