"""Log-mel against scipy and a loop; masks in spectrograms: by hand, statistics, evaluation."""

import audio_oracles as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from flax import nnx

from datarax import functional
from datarax.core import Batch
from datarax.functional.audio import spans
from datarax.operators import LogMel, LogMelConfig, SpecAugment, SpecAugmentConfig

WAVE = {"input_fields": ["wave"], "output_fields": ["mel"]}
MEL = {"input_fields": ["mel", "frames"], "output_fields": ["mel"]}
RANDOM = {"stochastic": True, "stream_name": "noise"}


def augment(**options):
    return SpecAugment(SpecAugmentConfig(**(MEL | options), **RANDOM), rngs=nnx.Rngs(0))


def sound(length=2000, seed=0):
    return np.random.default_rng(seed).normal(size=length)


@pytest.mark.parametrize(("fft_length", "hop_length"), [(400, 160), (64, 64), (100, 30)])
def test_spectrogram_is_that_of_scipy(fft_length, hop_length):
    with jax.enable_x64(True):
        found = functional.power_spectrogram(
            jnp.asarray(sound()), fft_length=fft_length, hop_length=hop_length
        )
    _, _, expected = scipy.signal.stft(
        sound(),
        nperseg=fft_length,
        noverlap=fft_length - hop_length,
        window="hann",
        boundary="even",  # mirrored, without the last sample again
        padded=False,
    )
    window = scipy.signal.get_window("hann", fft_length)
    np.testing.assert_allclose(found, np.abs(expected.T * window.sum()) ** 2, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mel_scale", ["slaney", "htk"])
@pytest.mark.parametrize("norm", ["slaney", "none"])
def test_bands_are_the_triangles_of_a_loop(mel_scale, norm):
    found = functional.mel_filterbank(
        n_mels=40, f_min=50.0, f_max=7000.0, mel_scale=mel_scale, norm=norm
    )
    expected = oracle.bands(
        length=400, rate=16000, count=40, low=50, high=7000, scale=mel_scale, norm=norm
    )
    # 2595 / ln 10 is 1126.99, which the loop writes as 1127
    tolerance = 1e-9 if mel_scale == "slaney" else 1e-3
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * expected.max())


def test_a_tone_is_loudest_in_its_band():
    wave = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    out = LogMel(LogMelConfig(**WAVE))(Batch.from_parts({"wave": jnp.asarray(wave)[None]}))["mel"]
    assert out.shape == (1, 101, 80)
    bank = functional.mel_filterbank()
    np.testing.assert_array_equal(np.argmax(out[0, 5:-5], axis=1), np.argmax(bank[25]))  # 25 * 40Hz


def test_padding_does_not_matter_before_its_border():
    config = LogMelConfig(input_fields=["wave", "keep"], output_fields=["mel", "frames"])
    op = LogMel(config)
    wave = np.zeros((2, 4000), np.float32)
    wave[:, :2400] = sound(2400)
    keep = jnp.asarray(np.arange(4000) < 2400)[None].repeat(2, axis=0)
    wave[1, 2400:] = np.nan
    out = op(Batch.from_parts({"wave": jnp.asarray(wave), "keep": keep}))
    np.testing.assert_array_equal(out["mel"][0], out["mel"][1])
    assert out["frames"][0].tolist() == [True] * 15 + [False] * 11
    assert not np.any(out["mel"][0, 15:])
    alone = op(Batch.from_parts({"wave": jnp.asarray(wave[:1, :2400]), "keep": keep[:1, :2400]}))
    inside = slice(0, 13)  # frames that reach no mirrored sample
    np.testing.assert_allclose(out["mel"][0, inside], alone["mel"][0, inside], rtol=1e-4, atol=1e-4)


def test_silence_is_the_floor():
    silent = jnp.zeros((1, 800))
    for power in (1.0, 2.0):
        op = LogMel(LogMelConfig(**WAVE, power=power, floor=1e-5))
        out = op(Batch.from_parts({"wave": silent}))["mel"]
        np.testing.assert_allclose(out, np.log(1e-5), rtol=1e-6)


def test_spans_by_hand():
    image = np.random.default_rng(0).normal(size=(20, 12)).astype(np.float32)
    frames = np.arange(20) < 15
    op = augment(max_time=6, max_frequency=4, time_share=0.3, fill=0.5)
    run = jax.jit(lambda data, u: op.apply(data, {}, None, u)[0]["mel"])
    for seed in range(10):
        rng = np.random.default_rng(seed)
        params = {n: rng.random((2, 2), dtype=np.float32) for n in ("time", "frequency")}
        expected = image.copy()
        for u, v in params["time"]:
            width = int(u * 5)  # at most floor(0.3 * 15) = 4
            start = int(v * (15 - width + 1))
            expected[start : start + width] = 0.5
        for u, v in params["frequency"]:
            width = int(u * 5)
            start = int(v * (12 - width + 1))
            expected[:, start : start + width] = 0.5
        found = run({"mel": jnp.asarray(image), "frames": jnp.asarray(frames)}, params)
        np.testing.assert_array_equal(found, expected)


def test_spans_are_uniform_and_inside():
    draws = jnp.asarray(np.random.default_rng(0).random((20000, 2)), jnp.float32)
    start, width = np.asarray(spans(draws, 8, max_width=3)).T
    np.testing.assert_allclose(np.bincount(width) / 20000, 1 / 4, atol=0.01)
    for w in range(4):
        shares = np.bincount(start[width == w], minlength=9 - w) / np.sum(width == w)
        assert len(shares) == 9 - w
        np.testing.assert_allclose(shares, 1 / (9 - w), atol=0.02)
    edge = spans(jnp.full((1, 2), 1 - 2**-24), 5, max_width=9)
    assert edge.tolist() == [[0, 5]]
    assert spans(draws[:3], 0, max_width=9).tolist() == [[0, 0]] * 3


def spectrograms(index, epoch=0):
    index = np.asarray(index)
    x = np.stack([np.random.default_rng(i).normal(size=(30, 12)) for i in index])
    lengths = 10 + index % 20
    return Batch.from_parts(
        {"mel": jnp.asarray(x, jnp.float32), "frames": np.arange(30) < lengths[:, None]},
        record_index=jnp.asarray(index, jnp.uint32),
        epoch=jnp.uint32(epoch),
    )


def test_time_is_hidden_among_the_frames_that_there_are():
    op = augment(max_time=30, frequency_masks=0, fill=99.0, time_masks=1)
    batch = spectrograms(np.arange(200))
    hidden = np.asarray(op(batch)["mel"] == 99.0)
    assert not hidden[~np.asarray(batch["frames"])].any()
    assert (hidden.all(axis=2) == hidden.any(axis=2)).all()
    # a width of 0 .. n frames, each alike, hides half of them
    lengths = np.asarray(batch["frames"]).sum(axis=1)
    assert (hidden[..., 0].sum(axis=1) / lengths).mean() == pytest.approx(0.5, abs=0.06)


def test_a_record_draws_the_same_anywhere_and_evaluation_changes_nothing():
    op = augment(max_time=8, max_frequency=5)

    def run(index, epoch=0):
        return np.asarray(op(spectrograms(index, epoch))["mel"])

    whole = run(np.arange(30))
    order = np.random.default_rng(0).permutation(30)
    np.testing.assert_array_equal(run(order), whole[order])
    np.testing.assert_array_equal(run(order[:7]), whole[order[:7]])
    assert (run(np.arange(30), epoch=1) != whole).any()
    op.eval()
    np.testing.assert_array_equal(run(np.arange(30)), spectrograms(np.arange(30))["mel"])


def test_functions_and_operators_say_what_they_need():
    with pytest.raises(ValueError, match=r"waveform has 200 samples, .* needs 201"):
        functional.power_spectrogram(jnp.zeros(200))
    with pytest.raises(ValueError, match=r"center=False needs 400"):
        functional.power_spectrogram(jnp.zeros(300), center=False)
    with pytest.raises(TypeError, match="waveform must be floating point, got int16"):
        functional.power_spectrogram(jnp.zeros(800, jnp.int16))
    with pytest.raises(ValueError, match="where must have shape"):
        functional.power_spectrogram(jnp.zeros(800), where=jnp.ones(8, bool))
    with pytest.raises(ValueError, match=r"filterbank must have 201 rows .* got \(3, 2\)"):
        functional.log_mel_spectrogram(jnp.zeros(800), filterbank=np.zeros((3, 2)))
    bank = functional.mel_filterbank()
    with pytest.raises(ValueError, match="floor must be positive, got 0"):
        functional.log_mel_spectrogram(jnp.zeros(800), filterbank=bank, floor=0.0)
    with pytest.raises(ValueError, match="hop_length 1, got 400 and 0"):
        functional.power_spectrogram(jnp.zeros(800), hop_length=0)
    with pytest.raises(ValueError, match="power must be positive, got 0"):
        functional.power_spectrogram(jnp.zeros(800), power=0)
    with pytest.raises(ValueError, match="n_mels must be at least 1, got 0"):
        functional.mel_filterbank(n_mels=0)
    with pytest.raises(ValueError, match=r"f_min 5\.0, f_max 4\.0"):
        functional.mel_filterbank(f_min=5.0, f_max=4.0)
    with pytest.raises(ValueError, match=r"a spectrogram is \[t, f\], got shape \(9,\)"):
        augment(input_fields=["mel"])(Batch.from_parts({"mel": jnp.zeros((2, 9))}))
    for mask, error in ((jnp.ones((2, 9)), TypeError), (jnp.ones((2, 8), bool), ValueError)):
        batch = Batch.from_parts({"mel": jnp.zeros((2, 9, 3)), "keep": mask})
        with pytest.raises(error, match="keep must"):
            augment(input_fields=["mel", "keep"])(batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_fields": ["wave", "keep"]}, "output_fields must hold 2"),
        ({"sample_rate": 0}, "sample_rate must be"),
        ({"fft_length": 1}, "fft_length must be an integer of at least 2"),
        ({"hop_length": 0}, "hop_length must be"),
        ({"n_mels": 0}, "n_mels must be"),
        ({"f_min": -1.0}, "f_min must be"),
        ({"f_max": 9000.0}, r"f_max must be a number in \(0.0, 8000.0\]"),
        ({"mel_scale": "bark"}, "mel_scale must be one of"),
        ({"norm": "area"}, "norm must be one of"),
        ({"power": 0.0}, "power must be"),
        ({"floor": 0.0}, "floor must be"),
        ({"center": 1}, "center must be True or False"),
    ],
)
def test_log_mel_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        LogMelConfig(**(WAVE | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_fields": ["a", "b"]}, "output_fields must hold 1"),
        ({"time_masks": -1}, "time_masks must be"),
        ({"frequency_masks": -1}, "frequency_masks must be"),
        ({"max_time": 0}, "max_time must be"),
        ({"max_frequency": 0}, "max_frequency must be"),
        ({"time_share": 0.0}, "time_share must be"),
        ({"fill": "mean"}, "fill must be"),
    ],
)
def test_spec_augment_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        SpecAugmentConfig(**(MEL | options), **RANDOM)
    with pytest.raises(ValueError, match="draws: give stochastic=True"):
        SpecAugmentConfig(**MEL)
