"""Rows of spectrograms and of the masks in them."""

import audio_oracles as oracle
import jax.numpy as jnp
from functional_case import Case, N

from datarax import functional

BANDS = {"n_mels": 3, "sample_rate": 4000}
SAMPLES = 24


def _wave(name, function, reference):
    return Case(
        name=name,
        run=lambda x, mask, ids: function(x, where=mask),
        oracle=reference,
        shapes=((N, SAMPLES),),
        kind="pointwise",
        mask=(N, SAMPLES),
        spoiled=(0,),
    )


def _spectrogram(name, *, power, center):
    options = {"power": power, "center": center}
    return _wave(
        name,
        lambda x, where: functional.power_spectrogram(
            x, fft_length=8, hop_length=3, where=where, **options
        ),
        oracle.spectrogram(length=8, hop=3, **options),
    )


def _log_mel(name, *, center, floor):
    bank = functional.mel_filterbank(fft_length=8, **BANDS)
    loop = oracle.bands(
        length=8, rate=4000, count=3, low=0, high=2000, scale="slaney", norm="slaney"
    )
    options = {"power": 2.0, "center": center, "floor": floor}
    return _wave(
        name,
        lambda x, where: functional.log_mel_spectrogram(
            x, filterbank=bank, fft_length=8, hop_length=4, where=where, **options
        ),
        oracle.log_mel(length=8, hop=4, bank=loop, **options),
    )


def _hidden(x):
    out = x.copy()
    out[:, 1:3] = -0.5
    out[:, 4:5] = -0.5
    return out


CASES = [
    _spectrogram("power_spectrogram", power=2.0, center=True),
    _spectrogram("magnitude_spectrogram", power=1.0, center=False),
    _log_mel("log_mel", center=True, floor=1e-10),
    _log_mel("log_mel_with_a_floor", center=False, floor=1e-3),
    Case(
        name="mask_spans",
        run=lambda x, mask, ids: functional.mask_spans(
            x, jnp.array([[1, 2], [4, 1], [0, 0]]), axis=-2, fill=-0.5
        ),
        oracle=lambda x, mask, ids: _hidden(x),
        shapes=((N, 6, 4),),
        kind="pointwise",
    ),
]
