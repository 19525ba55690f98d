"""Spectrograms as float64 sums over samples, mel bands from their corners."""

import math

import numpy as np


def frames_of(samples, length, hop, center):
    if center:
        half = length // 2
        samples = np.concatenate([samples[half:0:-1], samples, samples[-2 : -half - 2 : -1]])
    return [samples[i : i + length] for i in range(0, len(samples) - length + 1, hop)]


def spectrum_of(frame):
    length = len(frame)
    out = []
    for k in range(length // 2 + 1):
        real = imaginary = 0.0
        for j, sample in enumerate(frame):
            windowed = sample * math.sin(math.pi * j / length) ** 2  # Hann's, periodic
            real += windowed * math.cos(2 * math.pi * j * k / length)
            imaginary -= windowed * math.sin(2 * math.pi * j * k / length)
        out.append(math.hypot(real, imaginary))
    return np.array(out)


def spectrogram(*, length, hop, power, center):
    def run(waves, mask, ids):
        waves = waves if mask is None else np.where(mask, waves, 0)
        return np.array(
            [[spectrum_of(f) ** power for f in frames_of(w, length, hop, center)] for w in waves]
        )

    return run


def to_mel(hertz, scale):
    if scale == "htk":
        return 1127 * math.log(1 + hertz / 700)
    return hertz / (200 / 3) if hertz < 1000 else 15 + math.log(hertz / 1000) / (math.log(6.4) / 27)


def to_hertz(mel, scale):
    if scale == "htk":
        return 700 * (math.exp(mel / 1127) - 1)
    return mel * (200 / 3) if mel < 15 else 1000 * math.exp((mel - 15) * (math.log(6.4) / 27))


def bands(*, length, rate, count, low, high, scale, norm):
    start, end = to_mel(low, scale), to_mel(high, scale)
    corners = [to_hertz(start + (end - start) * i / (count + 1), scale) for i in range(count + 2)]
    bank = np.zeros((length // 2 + 1, count))
    for m in range(count):
        left, peak, right = corners[m : m + 3]
        for k in range(length // 2 + 1):
            hertz = k * rate / length
            if left < hertz <= peak:
                bank[k, m] = (hertz - left) / (peak - left)
            elif peak < hertz < right:
                bank[k, m] = (right - hertz) / (right - peak)
        if norm == "slaney":
            bank[:, m] *= 2 / (right - left)
    return bank


def log_mel(*, length, hop, power, center, floor, bank):
    energy = spectrogram(length=length, hop=hop, power=power, center=center)

    def run(waves, mask, ids):
        out = np.log(np.maximum(energy(waves, mask, ids) @ bank, floor))
        if mask is not None:
            for n, f in np.ndindex(out.shape[:2]):
                middle = f * hop + (0 if center else length // 2)
                if not mask[n][min(middle, mask.shape[1] - 1)]:
                    out[n, f] = 0
        return out

    return run
