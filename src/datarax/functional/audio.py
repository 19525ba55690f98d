"""Spectrograms of sound, and masks in them. Time is the last axis of a waveform `[..., t]`."""

import math
from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from datarax.functional.checks import accumulation_dtype, check_floating, check_mask

MelScale = Literal["slaney", "htk"]
MelNorm = Literal["slaney", "none"]


def power_spectrogram(
    waveform: Num[Array, "*batch t"],
    *,
    fft_length: int = 400,
    hop_length: int = 160,
    power: float | int = 2.0,
    center: bool = True,
    where: Array | None = None,
) -> Float[Array, "*batch frames bins"]:
    r"""$|X_{fk}|^p$ with $X_{fk} = \sum_j w_j\, x_{fh + j}\, e^{-2\pi i jk/N}$.

    The window is Hann's of the frame's length, $w_j = \tfrac12 - \tfrac12\cos(2\pi j/N)$.

    Args:
      waveform: samples.
      fft_length: N, the samples in a frame.
      hop_length: h, the samples from one frame to the next.
      power: p, positive: 2 for power, 1 for magnitude.
      center: mirror N // 2 samples at both ends, so that frame f is about sample f h, as in
        `torch.stft`; otherwise only whole frames are taken.
      where: bool, the shape of `waveform`; a sample that is not kept counts as 0.

    Returns:
      `[..., frames, N // 2 + 1]`, not negative, at least float32; `frame_count` gives the number of
      frames. In silence it is 0, and so is its gradient.

    Raises:
      TypeError: if `waveform` is not floating point or `where` not boolean.
      ValueError: if the waveform is too short, `where` has another shape, or a number is out of
        range.

    Reference: Allen and Rabiner, 1977, "A unified approach to short-time Fourier analysis".

    Example:
      >>> power_spectrogram(jnp.ones(8), fft_length=4, hop_length=4, center=False).round(2).tolist()
      [[4.0, 1.0, 0.0], [4.0, 1.0, 0.0]]
    """
    check_floating(waveform=waveform)
    if waveform.ndim == 0:
        raise ValueError("waveform must have shape [..., t], got ()")
    if not power > 0:
        raise ValueError(f"power must be positive, got {power}")
    samples = waveform.astype(accumulation_dtype(waveform))
    if where is not None:
        check_mask(where, shape=waveform.shape, name="where")
        samples = jnp.where(where, samples, 0)
    length = waveform.shape[-1]
    frames = frame_count(length, fft_length=fft_length, hop_length=hop_length, center=center)
    if center:
        widths = [(0, 0)] * (waveform.ndim - 1) + [(fft_length // 2, fft_length // 2)]
        samples = jnp.pad(samples, widths, mode="reflect")
    places = np.arange(frames)[:, None] * hop_length + np.arange(fft_length)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(fft_length) / fft_length)
    framed = samples[..., places]
    windowed = framed * jnp.broadcast_to(jnp.asarray(window, samples.dtype), framed.shape)
    spectrum = jnp.fft.rfft(windowed, axis=-1)
    energy = spectrum.real**2 + spectrum.imag**2
    if power == 2:
        return energy
    silent = energy == 0  # the root's derivative is infinite there
    return jnp.where(silent, 0, jnp.where(silent, 1, energy) ** (power / 2))


def frame_count(length: int, *, fft_length: int, hop_length: int, center: bool) -> int:
    """How many frames `power_spectrogram` makes of `length` samples.

    Raises:
      ValueError: if the samples do not suffice for one frame, or to be mirrored, `fft_length` is
        below 2 or `hop_length` below 1.

    Example:
      >>> frame_count(16000, fft_length=400, hop_length=160, center=True)
      101
    """
    if fft_length < 2 or hop_length < 1:
        raise ValueError(
            f"fft_length must be at least 2 and hop_length 1, got {fft_length} and {hop_length}"
        )
    least = fft_length // 2 + 1 if center else fft_length
    if length < least:
        raise ValueError(
            f"waveform has {length} samples, fft_length {fft_length} with center={center} "
            f"needs {least}"
        )
    return 1 + (length - (fft_length % 2 if center else fft_length)) // hop_length


def frame_mask(
    mask: Bool[Array, "*batch t"], *, fft_length: int, hop_length: int, center: bool
) -> Bool[Array, "*batch frames"]:
    """Which frames are kept: those whose middle sample is.

    Args:
      mask: True where a sample is kept.
      fft_length, hop_length, center: as of `power_spectrogram`.

    Raises:
      ValueError: if the waveform is too short.

    Example:
      >>> frame_mask(jnp.arange(8) < 5, fft_length=4, hop_length=2, center=True).tolist()
      [True, True, True, False, False]
    """
    length = mask.shape[-1]
    frames = frame_count(length, fft_length=fft_length, hop_length=hop_length, center=center)
    middle = np.arange(frames) * hop_length + (0 if center else fft_length // 2)
    return mask[..., np.minimum(middle, length - 1)]


def mel_filterbank(
    *,
    fft_length: int = 400,
    sample_rate: float | int = 16000,
    n_mels: int = 80,
    f_min: float | int = 0.0,
    f_max: float | int | None = None,
    mel_scale: MelScale = "slaney",
    norm: MelNorm = "slaney",
) -> np.ndarray:
    r"""Triangles `[N // 2 + 1, n_mels]`, evenly spaced in mel, over the bins of a spectrum.

    With the corners $c_0 .. c_{M+1}$ in hertz, evenly spaced in mel from `f_min` to `f_max`,
    $B_{km} = \max(0, \min(\frac{f_k - c_{m-1}}{c_m - c_{m-1}}, \frac{c_{m+1} - f_k}{c_{m+1} -
    c_m}))$; `norm="slaney"` multiplies it with $2 / (c_{m+1} - c_{m-1})$: an area of 1.

    Args:
      fft_length, sample_rate: of the spectrum; bin k is at `k sample_rate / fft_length` hertz.
      n_mels: how many triangles.
      f_min, f_max: the range in hertz; `None` is half the sample rate.
      mel_scale: `"htk"`, $2595 \log_{10}(1 + f / 700)$; or `"slaney"`, linear below 1000 Hz (15
        mel) and logarithmic above, 27 mel for a factor of 6.4.
      norm: `"slaney"` or `"none"`, a height of 1.

    Returns:
      float64, from the arguments alone.

    Raises:
      ValueError: for another scale or norm, without a triangle, or unless 0 <= f_min < f_max <=
        sample_rate / 2.

    Reference: Slaney, 1998, "Auditory toolbox"; Young et al., 2006, "The HTK book", section 5.4.

    Example:
      >>> mel_filterbank(fft_length=8, sample_rate=8, n_mels=1, norm="none").ravel().tolist()
      [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if mel_scale not in get_args(MelScale):
        raise ValueError(f"mel_scale must be one of {list(get_args(MelScale))}, got {mel_scale!r}")
    if norm not in get_args(MelNorm):
        raise ValueError(f"norm must be one of {list(get_args(MelNorm))}, got {norm!r}")
    if n_mels < 1:
        raise ValueError(f"n_mels must be at least 1, got {n_mels}")
    top = sample_rate / 2 if f_max is None else f_max
    if not 0 <= f_min < top <= sample_rate / 2:
        raise ValueError(
            f"expected 0 <= f_min < f_max <= {sample_rate / 2}, got f_min {f_min}, f_max {top}"
        )
    ends = _hertz_to_mel(np.array([f_min, top], np.float64), mel_scale)
    corners = _mel_to_hertz(np.linspace(ends[0], ends[1], n_mels + 2), mel_scale)
    bins = np.arange(fft_length // 2 + 1)[:, None] * (sample_rate / fft_length)
    left, peak, right = corners[:-2], corners[1:-1], corners[2:]
    rise, fall = (bins - left) / (peak - left), (right - bins) / (right - peak)
    triangles = np.maximum(0, np.minimum(rise, fall))
    return triangles * (2 / (right - left)) if norm == "slaney" else triangles


def log_mel_spectrogram(
    waveform: Num[Array, "*batch t"],
    *,
    filterbank: np.ndarray,
    fft_length: int = 400,
    hop_length: int = 160,
    power: float | int = 2.0,
    floor: float = 1e-10,
    center: bool = True,
    where: Array | None = None,
) -> Float[Array, "*batch frames mels"]:
    r"""$\ln\max(\epsilon, \sum_k B_{km} |X_{fk}|^p)$.

    Args:
      waveform: samples in [-1, 1].
      filterbank: B, of `mel_filterbank` with the same `fft_length`.
      fft_length, hop_length, power, center: as of `power_spectrogram`.
      floor: epsilon, positive.
      where: bool, the shape of `waveform`, True = keep.

    Returns:
      `[..., frames, mels]` in the dtype of `waveform`, computed in at least float32. Frames whose
      middle sample is not kept are 0, with gradient 0; samples that are not kept count as silence.

    Raises:
      TypeError: if `waveform` is not floating point or `where` not boolean.
      ValueError: if the waveform is too short, shapes do not fit, or `floor` is not positive.

    Reference: Davis and Mermelstein, 1980; the sizes are those of Radford et al., 2022,
    arXiv:2212.04356, section 2.2.

    Example:
      >>> bank = mel_filterbank(fft_length=8, sample_rate=8, n_mels=2)
      >>> log_mel_spectrogram(jnp.zeros(16), filterbank=bank, fft_length=8, hop_length=4).shape
      (5, 2)
    """
    if filterbank.shape[0] != fft_length // 2 + 1:
        raise ValueError(
            f"filterbank must have {fft_length // 2 + 1} rows for fft_length {fft_length}, "
            f"got {filterbank.shape}"
        )
    if not floor > 0:
        raise ValueError(f"floor must be positive, got {floor}")
    framing: dict[str, Any] = {"fft_length": fft_length, "hop_length": hop_length, "center": center}
    spectrum = power_spectrogram(waveform, power=power, where=where, **framing)
    mel = jnp.matmul(spectrum, jnp.asarray(filterbank, spectrum.dtype), precision="highest")
    out = jnp.log(jnp.where(mel > floor, mel, floor))
    if where is not None:
        out = jnp.where(frame_mask(where, **framing)[..., None], out, 0)
    return out.astype(waveform.dtype)


def spans(
    draws: Float[Array, "count 2"],
    length: Int[Array, ""] | int,
    *,
    max_width: int,
    share: float | int = 1.0,
) -> Int[Array, "count 2"]:
    r"""Spans (start, width) in `length` slots: every width alike, then every place alike.

    $w = \lfloor u_1 (\min(W, \lfloor pL \rfloor) + 1) \rfloor$ and
    $s = \lfloor u_2 (L - w + 1) \rfloor$.

    Args:
      draws: uniform in [0, 1), a row a span.
      length: L, how many slots there are; may be traced.
      max_width: W, the greatest width.
      share: p in (0, 1], the greatest width as a share of L.

    Returns:
      int32, inside of the slots; widths may be 0.

    Reference: Park et al., 2019, arXiv:1904.08779, section 2, whose half-open ranges leave out the
    last place of each width; here it is as likely as the others.

    Example:
      >>> spans(jnp.array([[0.5, 0.99]]), 10, max_width=3).tolist()
      [[8, 2]]
    """
    length = jnp.asarray(length, jnp.int32)
    allowed = jnp.floor(length.astype(draws.dtype) * share + 1e-3).astype(jnp.int32)
    most = jnp.minimum(jnp.int32(max_width), allowed)
    width = jnp.floor(draws[:, 0] * (most + 1).astype(draws.dtype)).astype(jnp.int32)
    width = jnp.minimum(width, most)
    start = jnp.floor(draws[:, 1] * (length - width + 1).astype(draws.dtype)).astype(jnp.int32)
    return jnp.stack([jnp.minimum(start, length - width), width], axis=1)


def mask_spans(
    x: Num[Array, "*batch t f"], spans: Int[Array, "count 2"], *, axis: int, fill: float | int = 0.0
) -> Num[Array, "*batch t f"]:
    """The array with `fill` in the spans of one axis.

    Args:
      x: for example a log-mel spectrogram.
      spans: (start, width) a row.
      axis: -2 for time masks, -1 for frequency masks, or any other.
      fill: what is written.

    Returns:
      The shape and dtype of `x`; the gradient is exactly 0 in the spans.

    Reference: Park et al., 2019, arXiv:1904.08779, section 2.

    Example:
      >>> mask_spans(jnp.ones((1, 4)), jnp.array([[1, 2]]), axis=-1).tolist()
      [[1.0, 0.0, 0.0, 1.0]]
    """
    place = jnp.arange(x.shape[axis], dtype=spans.dtype)[None, :]
    inside = (place >= spans[:, :1]) & (place < spans[:, :1] + spans[:, 1:])
    shape = [1] * x.ndim
    shape[axis] = x.shape[axis]
    hidden = jnp.broadcast_to(jnp.reshape(jnp.any(inside, axis=0), shape), x.shape)
    return jnp.where(hidden, jnp.asarray(fill, x.dtype), x)


def _hertz_to_mel(hertz: np.ndarray, scale: str) -> np.ndarray:
    if scale == "htk":
        return 2595 * np.log10(1 + hertz / 700)
    high = 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / math.log(6.4)
    return np.where(hertz < 1000, hertz * 3 / 200, high)


def _mel_to_hertz(mel: np.ndarray, scale: str) -> np.ndarray:
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    high = 1000 * np.exp((np.maximum(mel, 15) - 15) * math.log(6.4) / 27)
    return np.where(mel < 15, mel * 200 / 3, high)
