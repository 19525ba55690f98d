import io
import struct

import numpy as np
import pytest

from datarax.sources import decode_audio
from datarax.sources.decode_audio import AudioDecoder
from datarax.sources.limits import Limits
from datarax.sources.record import DecodeError

soundfile = pytest.importorskip("soundfile")
soxr = pytest.importorskip("soxr")


def sine(seconds, rate, hertz=50.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype("f4")


def encoded(sound, rate, kind="WAV", subtype=None):
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format=kind, subtype=subtype)
    return file.getvalue()


def decode(data, seconds, rate=1000, **limits):
    decoder = AudioDecoder(seconds=seconds, rate=rate)
    sound, mask = decoder.decode(data, limits=Limits(**limits))
    for made, spec in zip((sound, mask), decoder.spec(), strict=True):
        assert (made.shape, made.dtype) == (spec.shape, spec.dtype)
    assert not sound[~mask].any()
    return sound, mask


@pytest.mark.parametrize("frames", [1, 999, 1000, 1001, 200_000])
def test_sound_is_padded_or_cut(frames):
    meant = sine(frames / 1000, 1000)
    sound, mask = decode(encoded(meant, 1000, subtype="FLOAT"), 1)
    kept = min(frames, 1000)
    np.testing.assert_array_equal(sound[:kept], meant[:kept])
    assert mask.tolist() == [i < kept for i in range(1000)]


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_formats_of_libsndfile_are_read(kind):
    meant = sine(0.5, 16_000, 440)
    data = encoded(meant, 16_000, kind)
    sound, _ = decode(data, 0.25, 16_000)
    whole, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    np.testing.assert_allclose(sound, whole[:4000], atol=1e-6)  # MP3 rounds by how much is read


def test_channels_are_averaged():
    left, right = sine(1, 1000), sine(1, 1000, 70)
    sound, _ = decode(encoded(np.stack([left, right], 1), 1000, subtype="FLOAT"), 1)
    np.testing.assert_allclose(sound, (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize("rate", [500, 1600, 44_100])
@pytest.mark.parametrize("length", [0.3, 1.0, 2.0])
def test_other_rates_are_resampled_as_the_whole_sound_would_be(rate, length):
    meant = sine(length, rate)
    sound, mask = decode(encoded(meant, rate, subtype="FLOAT"), 1)
    whole = soxr.resample(meant, rate, 1000)[:1000]
    assert mask.sum() == len(whole)
    np.testing.assert_allclose(sound[mask], whole, atol=2e-3)
    np.testing.assert_allclose(sound[mask][50:-50], sine(1, 1000)[: len(whole)][50:-50], atol=1e-2)


def test_the_seconds_of_a_sound_are_limited():
    data = encoded(sine(2, 1000), 1000)
    decode(data, 1, audio_seconds=2)
    with pytest.raises(DecodeError, match=r"a sound of 2\.0 seconds, at most 1\.5 \(Limits"):
        decode(data, 1, audio_seconds=1.5)


def test_many_channels_are_limited_before_they_are_read():
    data = encoded(np.zeros((100, 64), "f4"), 1000)
    with pytest.raises(DecodeError, match=r"a sound of 64 channels \(Limits\.array_bytes\)"):
        decode(data, 1, array_bytes=100)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3"])
def test_truncated_sounds_are_refused(kind):
    data = encoded(np.random.default_rng(0).uniform(-1, 1, 20_000), 8000, kind)
    for end in (0, 1, 10, 30, 60, len(data) // 2, len(data) * 9 // 10):
        with pytest.raises(DecodeError, match="sound") as caught:
            decode(data[:end], 9)
        assert "\n" not in str(caught.value)
        assert "0x" not in str(caught.value)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_any_changed_byte_gives_a_sound_or_a_reason(kind):
    data = encoded(sine(0.2, 8000), 8000, kind)
    for place in range(0, len(data), max(1, len(data) // 100)):
        changed = data[:place] + bytes([data[place] ^ 0xA5]) + data[place + 1 :]
        try:
            decode(changed, 0.1, 8000)
        except DecodeError:
            continue


def wave(rate, body=bytes(8), frames=4):
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
    data = b"WAVE" + head + b"data" + struct.pack("<I", frames * 2) + body
    return b"RIFF" + struct.pack("<I", len(data)) + data


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (b"hello", "not a sound that can be read"),
        (b"", "not a sound that can be read"),
        ("a.wav", "expected the bytes of a sound, got str"),
        (encoded(np.zeros(0, "f4"), 1000), "a sound without samples"),
        (encoded(np.array([0, np.nan, 0], "f4"), 1000, subtype="FLOAT"), "not finite"),
        (encoded(np.array([0, np.inf, 0], "f4"), 1000, subtype="FLOAT"), "not finite"),
        (wave(50), "a rate of 50 Hz, expected 100 to 1000000"),
        (wave(2_000_000_000), "a rate of 2000000000 Hz"),
    ],
    # names of their own: libsndfile writes the time into a file, and each worker makes its own
    ids=["text", "nothing", "path", "no samples", "nan", "inf", "slow", "fast"],
)
def test_what_is_no_sound_is_refused(part, reason):
    with pytest.raises(DecodeError, match=reason):
        decode(part, 1)


def test_a_wave_file_of_unknown_length_is_read():
    data = encoded(sine(0.5, 1000), 1000)
    for size in (0, 0xFFFFFFFF):
        streamed = data[:4] + struct.pack("<I", size) + data[8:]
        assert decode(streamed, 1)[1].sum() == 500


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"seconds": [1, 2]}, r"got \[1, 2\]: give them as a tuple"),
        (
            {"seconds": 0},
            "must be a positive number, or several that rise by a sample or more, got 0",
        ),
        ({"seconds": float("nan")}, "seconds must be"),
        ({"seconds": "4"}, "seconds must be"),
        ({"seconds": float("inf")}, "seconds must be"),
        ({"seconds": 1, "rate": 10}, "rate must be 100 to 1000000 Hz, got 10"),
        ({"seconds": 1, "rate": 16e3}, "rate must be"),
    ],
)
def test_options_are_checked(options, reason):
    with pytest.raises(ValueError, match=reason):
        AudioDecoder(**options)


def test_a_missing_extra_says_what_to_install(monkeypatch):
    monkeypatch.setattr(decode_audio.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'datarax\[audio\]'"):
        AudioDecoder(seconds=1)


def test_a_default_is_one_value():
    sound, mask = AudioDecoder(seconds=0.01, rate=1000).default(0)
    assert sound.tolist() == [0] * 10
    assert mask.all()
    with pytest.raises(DecodeError, match="expected a sample of -1 to 1, got 2"):
        AudioDecoder(seconds=1).default(2)
