"""Operators on sound: a waveform `[t]` to its log-mel spectrogram, and masks in spectrograms."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from datarax.core.config import check_flag
from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig
from datarax.functional.audio import (
    MelNorm,
    MelScale,
    frame_mask,
    log_mel_spectrogram,
    mask_spans,
    mel_filterbank,
    spans,
)
from datarax.functional.checks import check_mask
from datarax.operators.checks import (
    check_choice,
    check_count,
    check_integer,
    check_number,
    check_positive,
)
from datarax.operators.field import check_stochastic, draw_rows


@dataclass(frozen=True)
class LogMelConfig(CrossModalOperatorConfig):
    """The spectrogram; the defaults are Whisper's (arXiv:2212.04356), with natural logarithms.

    The input fields are a waveform and, if there is one, the mask of its samples; the output fields
    the spectrogram `[frames, n_mels]` and then the mask of its frames.

    Attributes:
      sample_rate: samples a second.
      fft_length: samples in a frame.
      hop_length: samples from one frame to the next.
      n_mels: bands.
      f_min, f_max: the range of the bands in hertz; `None` is half the sample rate.
      mel_scale, norm: of the bands, see `functional.mel_filterbank`.
      power: of the magnitudes: 2, or 1.
      floor: the least value before the logarithm.
      center: mirror half a frame at both ends.

    Raises:
      ValueError: unless there are one or two fields in, as many out, and values in range.
    """

    operation: str = field(default="log_mel", kw_only=True)
    sample_rate: int = field(default=16000, kw_only=True)
    fft_length: int = field(default=400, kw_only=True)
    hop_length: int = field(default=160, kw_only=True)
    n_mels: int = field(default=80, kw_only=True)
    f_min: float = field(default=0.0, kw_only=True)
    f_max: float | None = field(default=None, kw_only=True)
    mel_scale: MelScale = field(default="slaney", kw_only=True)
    norm: MelNorm = field(default="slaney", kw_only=True)
    power: float = field(default=2.0, kw_only=True)
    floor: float = field(default=1e-10, kw_only=True)
    center: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("input_fields", self.input_fields, [1, 2])
        check_count("output_fields", self.output_fields, [len(self.input_fields)])
        check_positive("sample_rate", self.sample_rate)
        check_integer("fft_length", self.fft_length, low=2)
        check_positive("hop_length", self.hop_length)
        check_positive("n_mels", self.n_mels)
        top = self.sample_rate / 2
        check_number("f_min", self.f_min, low=0, high=top)
        if self.f_max is not None:
            check_number("f_max", self.f_max, low=self.f_min, high=top, open_low=True)
        check_choice("mel_scale", self.mel_scale, MelScale)
        check_choice("norm", self.norm, MelNorm)
        check_number("power", self.power, low=0, high=10, open_low=True)
        check_number("floor", self.floor, low=0, high=1, open_low=True)
        check_flag("center", self.center)


@dataclass(frozen=True)
class SpecAugmentConfig(CrossModalOperatorConfig):
    """Spans to hide in a spectrogram `[t, f]`; the defaults are LibriSpeech's double policy.

    The input fields are the spectrogram and, if there is one, the mask of its frames, which must be
    padded behind: time spans then lie among the frames that there are.

    Attributes:
      time_masks, frequency_masks: how many spans.
      max_time, max_frequency: the greatest width, in frames and in bands.
      time_share: no span of time is wider than this share of the frames.
      fill: what is written; the mean of the data, 0 for a normalised spectrogram.

    Raises:
      ValueError: unless it is stochastic, with one or two fields in, one out, and values in range.
    """

    operation: str = field(default="spec_augment", kw_only=True)
    time_masks: int = field(default=2, kw_only=True)
    max_time: int = field(default=100, kw_only=True)
    time_share: float = field(default=1.0, kw_only=True)
    frequency_masks: int = field(default=2, kw_only=True)
    max_frequency: int = field(default=27, kw_only=True)
    fill: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stochastic(self)
        check_count("input_fields", self.input_fields, [1, 2])
        check_count("output_fields", self.output_fields, [1])
        check_integer("time_masks", self.time_masks, low=0)
        check_integer("frequency_masks", self.frequency_masks, low=0)
        check_positive("max_time", self.max_time)
        check_positive("max_frequency", self.max_frequency)
        check_number("time_share", self.time_share, low=0, high=1, open_low=True)
        check_number("fill", self.fill, low=-1e9, high=1e9)


class LogMel(CrossModalOperator):
    """The log-mel spectrogram of a waveform (`functional.log_mel_spectrogram`).

    The waveform is floating point; `Normalize` with `scale=1/32768` makes it of 16-bit samples.
    """

    config: LogMelConfig
    config_class = LogMelConfig

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """The spectrogram of one record, and the mask of its frames."""
        config = self.config
        waveform, *masks = self._extract_inputs(data)
        framing: dict[str, Any] = {
            "fft_length": config.fft_length,
            "hop_length": config.hop_length,
            "center": config.center,
        }
        bank = mel_filterbank(
            fft_length=config.fft_length,
            sample_rate=config.sample_rate,
            n_mels=config.n_mels,
            f_min=config.f_min,
            f_max=config.f_max,
            mel_scale=config.mel_scale,
            norm=config.norm,
        )
        spectrogram = log_mel_spectrogram(
            waveform,
            filterbank=bank,
            power=config.power,
            floor=config.floor,
            where=masks[0] if masks else None,
            **framing,
        )
        frames = [frame_mask(mask, **framing) for mask in masks]
        return self._store_outputs(data, [spectrogram, *frames]), state, metadata


class SpecAugment(CrossModalOperator):
    """Hide spans of time and of frequency (`functional.mask_spans`); off in `op.eval()`.

    Of the three changes of the paper, warping of time is left out.
    """

    config: SpecAugmentConfig
    config_class = SpecAugmentConfig

    def generate_random_params(self, rng: Array, data_shapes: Any) -> dict[str, Array]:
        """Uniform numbers `[B, count, 2]` for `functional.spans`: `time` and `frequency`."""

        def numbers(key: Array, shape: tuple[int, ...]) -> dict[str, Array]:
            time, frequency = jax.random.split(key)
            return {
                "time": jax.random.uniform(time, (self.config.time_masks, 2)),
                "frequency": jax.random.uniform(frequency, (self.config.frequency_masks, 2)),
            }

        return draw_rows(numbers, rng, data_shapes, self.config.input_fields[0])

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """Hide spans of one record.

        Raises:
          TypeError: if the mask is not boolean.
          ValueError: if the spectrogram has not two axes, or the mask not the length of its first.
        """
        x, *masks = self._extract_inputs(data)
        if x.ndim != 2:
            raise ValueError(f"a spectrogram is [t, f], got shape {x.shape}")
        for name, mask in zip(self.config.input_fields[1:], masks, strict=True):
            check_mask(mask, shape=x.shape[:1], name=name)
        if random_params is not None:
            config = self.config
            frames = jnp.sum(masks[0], dtype=jnp.int32) if masks else jnp.int32(x.shape[0])
            time = spans(
                random_params["time"], frames, max_width=config.max_time, share=config.time_share
            )
            bands = spans(random_params["frequency"], x.shape[1], max_width=config.max_frequency)
            x = mask_spans(x, time, axis=-2, fill=config.fill)
            x = mask_spans(x, bands, axis=-1, fill=config.fill)
        return self._store_outputs(data, [x]), state, metadata
