"""Sounds as float32 of one rate and one length."""

import dataclasses
import importlib.util
import io
import math
from typing import Any

import jax
import numpy as np

from datarax.sources.decode_array import as_tuple, pad
from datarax.sources.limits import Limits
from datarax.sources.record import DecodeError

BLOCK = 2**16  # frames
MARGIN = 0.1  # seconds beyond the cut, so that resampling hears what comes after it
RATES = (100, 1_000_000)  # of a file, in Hz
ENDLESS = (0, 0x7FFFFFFF, 0xFFFFFFFF)  # RIFF sizes of those who write before they know


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioDecoder:
    """The beginning of a sound, all channels averaged, padded with zeros or cut, with a mask.

    Whatever libsndfile reads: WAV, FLAC, Ogg, MP3 and others. Needs `datarax[audio]`. WAV, FLAC and
    MP3 that are cut are refused where the cut is in what the field needs (WAV anywhere); Ogg and
    AIFF that are cut have the length of what is left.

    Attributes:
      seconds: of the field; or several, of which a batch has the shortest that holds its rows.
      rate: in Hz; other rates are resampled.

    Raises:
      ImportError: if soundfile or soxr is not installed.
      ValueError: if the field would have no sample.
    """

    seconds: float | tuple[float, ...]
    rate: int = 16_000

    def __post_init__(self) -> None:
        require_audio()
        if type(self.rate) is not int or not RATES[0] <= self.rate <= RATES[1]:
            raise ValueError(f"rate must be {RATES[0]} to {RATES[1]} Hz, got {self.rate!r}")
        seconds = as_tuple(self.seconds)
        numbers = all(type(x) in (int, float) and 1 <= x * self.rate < math.inf for x in seconds)
        if not seconds or not numbers or list(self.lengths) != sorted(set(self.lengths)):
            hint = ": give them as a tuple" if isinstance(self.seconds, list) else ""
            raise ValueError(
                "seconds must be a positive number, or several that rise by a sample or more, got "
                f"{self.seconds!r}{hint}"
            )

    @property
    def lengths(self) -> tuple[int, ...]:
        """Those that a batch may have, in samples; a record has the last."""
        return tuple(round(seconds * self.rate) for seconds in as_tuple(self.seconds))

    @property
    def longest(self) -> float:
        """What is read of a sound, in seconds."""
        return float(as_tuple(self.seconds)[-1])

    @property
    def samples(self) -> int:
        """The length of the field."""
        return self.lengths[-1]

    def decode(self, part: Any, *, limits: Limits) -> tuple[np.ndarray, ...]:
        """Samples float32 `[samples]`, and bool `[samples]`: which are there.

        Raises:
          DecodeError: if it is no sound, damaged, longer than the limits allow, without a sample,
            or with one that is not finite.
        """
        import soundfile

        if not isinstance(part, bytes):
            raise DecodeError(f"expected the bytes of a sound, got {type(part).__name__}")
        _check_riff(part)
        try:
            with soundfile.SoundFile(io.BytesIO(part)) as file:
                sound = self._read(file, limits)
                rate = file.samplerate
        except soundfile.LibsndfileError as error:
            raise DecodeError(f"not a sound that can be read: {error.error_string}") from error
        if not len(sound):
            raise DecodeError("a sound without samples")
        if not np.isfinite(sound).all():
            raise DecodeError("a sample is not finite")
        return pad(self._resample(sound, rate), self.samples)

    def default(self, value: Any) -> tuple[np.ndarray, ...]:
        """One value everywhere: 0 is silence."""
        if type(value) not in (int, float) or not -1 <= value <= 1:
            raise DecodeError(f"expected a sample of -1 to 1, got {value!r}")
        return pad(np.full(self.samples, value, np.float32), self.samples)

    def spec(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shape and dtype of the samples and of their mask."""
        shape = (self.samples,)
        return (jax.ShapeDtypeStruct(shape, np.float32), jax.ShapeDtypeStruct(shape, np.bool_))

    def _read(self, file: Any, limits: Limits) -> np.ndarray:
        """As many frames as the field needs, mixed down; memory grows with what is really there."""
        frames, rate, channels = file.frames, file.samplerate, file.channels
        if not RATES[0] <= rate <= RATES[1]:
            raise DecodeError(f"a rate of {rate} Hz, expected {RATES[0]} to {RATES[1]}")
        if frames / rate > limits.audio_seconds:
            most = f"at most {limits.audio_seconds:g} (Limits.audio_seconds)"
            raise DecodeError(f"a sound of {frames / rate:.1f} seconds, {most}")
        needed = min(frames, int((self.longest + MARGIN) * rate) + 1)
        if min(needed, BLOCK) * channels * 4 > limits.array_bytes:
            raise DecodeError(f"a sound of {channels} channels (Limits.array_bytes)")
        blocks: list[np.ndarray] = []
        while needed > 0:
            block = file.read(min(needed, BLOCK), dtype="float32", always_2d=True)
            if len(block) == 0:
                raise DecodeError(f"a truncated sound: {frames} frames are declared, not there")
            blocks.append(block.mean(axis=1, dtype=np.float32))
            needed -= len(block)
        return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)

    def _resample(self, sound: np.ndarray, rate: int) -> np.ndarray:
        import soxr

        if rate == self.rate:
            return sound
        made: np.ndarray = soxr.resample(sound, rate, self.rate)
        return made


def require_audio() -> None:
    """See that sounds can be read.

    Raises:
      ImportError: if they cannot, saying what to install.
    """
    for module in ("soundfile", "soxr"):
        if importlib.util.find_spec(module) is None:
            raise ImportError(f"audio needs {module}: pip install 'datarax[audio]'")


def _check_riff(data: bytes) -> None:
    """Refuse a WAV file that is cut: libsndfile takes what is there as the whole."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return
    declared = int.from_bytes(data[4:8], "little")
    if declared not in ENDLESS and declared + 8 > len(data) + 1:  # some omit the last pad byte
        raise DecodeError(f"a truncated sound: {declared + 8} bytes are declared, {len(data)} are")
