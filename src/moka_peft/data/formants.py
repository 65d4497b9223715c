"""Speaks the ten digits without a recording: harmonics of a voice and bands of noise, shaped by moving formants."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SAMPLE_RATE_HZ = 16_000
_FRAME_SECONDS = 0.005
_WIDTHS_HZ = np.array([90.0, 120.0, 180.0])  # of the three formants
_LOUDNESS = np.array([1.0, 0.6, 0.3])
_HIGHEST_HARMONIC_HZ = 4000.0


@dataclass(frozen=True)
class Voice:
    """Who speaks: the pitch, the size of the vocal tract (1 = the table's formants), and the pace."""

    pitch_hz: float
    tract: float
    pace: float


VOICES = (
    Voice(100, 0.96, 1.0), Voice(118, 1.0, 0.9), Voice(134, 1.04, 1.1),
    Voice(172, 1.1, 1.0), Voice(196, 1.14, 0.92), Voice(218, 1.18, 1.08),
)  # fmt: skip

_PHONES = {
    # seconds, voice, noise, noise band in Hz, three formants in Hz (textbook averages, rounded)
    "z": (0.09, 0.4, 0.30, (4000, 7500), (300, 1700, 2600)),
    "ih": (0.08, 1.0, 0.0, (0, 0), (400, 2000, 2550)),
    "r": (0.07, 0.8, 0.0, (0, 0), (420, 1250, 1600)),
    "oh": (0.17, 1.0, 0.0, (0, 0), (500, 900, 2400)),
    "w": (0.07, 0.7, 0.0, (0, 0), (300, 650, 2200)),
    "uh": (0.13, 1.0, 0.0, (0, 0), (640, 1190, 2390)),
    "n": (0.09, 0.5, 0.0, (0, 0), (280, 1650, 2500)),
    "t": (0.05, 0.0, 0.35, (2500, 7000), (400, 1800, 2600)),
    "oo": (0.20, 1.0, 0.0, (0, 0), (310, 870, 2250)),
    "th": (0.09, 0.0, 0.10, (1500, 7500), (400, 1600, 2500)),
    "ee": (0.19, 1.0, 0.0, (0, 0), (280, 2250, 2950)),
    "f": (0.10, 0.0, 0.12, (1000, 7500), (400, 1100, 2300)),
    "aw": (0.19, 1.0, 0.0, (0, 0), (570, 840, 2410)),
    "ah": (0.12, 1.0, 0.0, (0, 0), (750, 1150, 2450)),
    "v": (0.07, 0.4, 0.08, (1000, 7000), (300, 1150, 2350)),
    "s": (0.12, 0.0, 0.40, (4200, 7800), (400, 1700, 2600)),
    "k": (0.06, 0.0, 0.25, (1500, 3500), (400, 1900, 2500)),
    "eh": (0.11, 1.0, 0.0, (0, 0), (530, 1840, 2480)),
    "ay": (0.14, 1.0, 0.0, (0, 0), (470, 2050, 2600)),
}  # fmt: skip
_SPELLING = ("z ih r oh", "w uh n", "t oo", "th r ee", "f aw r", "f ah ee v", "s ih k s", "s eh v uh n", "ay ee t",
             "n ah ee n")  # fmt: skip


def speak(digit: int, voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """One spoken digit at full loudness, float32 [samples]; pitch, pace and formants differ a little every time."""
    names = [str(name) for name in _SPELLING[digit].split()]
    pace = voice.pace * rng.uniform(0.9, 1.1)
    seconds = np.array([_PHONES[name][0] for name in names]) / pace * rng.uniform(0.9, 1.1, size=len(names))
    seconds *= min(1.0, 0.66 / seconds.sum())
    count = int(seconds.sum() * SAMPLE_RATE_HZ)
    time = np.arange(count) / SAMPLE_RATE_HZ
    middles = np.cumsum(seconds) - seconds / 2
    tract = voice.tract * rng.uniform(0.97, 1.03)
    formants = np.array([_PHONES[name][4] for name in names]) * tract  # [phones, 3]
    paths = [np.interp(time, middles, formants[:, k]) for k in range(3)]
    voiced = np.interp(time, middles, [_PHONES[name][1] for name in names])
    wave = voiced * _voice(time, paths, voice.pitch_hz * rng.uniform(0.94, 1.06))
    wave += _noise(names, seconds, count, rng)
    wave *= np.minimum(1.0, np.minimum(time, time[-1] - time) / 0.015)
    return (wave / np.abs(wave).max()).astype(np.float32)


def _voice(time: np.ndarray, formants: list[np.ndarray], pitch_hz: float) -> np.ndarray:
    """A falling voice whose harmonics are as loud as the formants let them be."""
    pitch = pitch_hz * (1.06 - 0.15 * time / time[-1])
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE_HZ
    wave = np.zeros_like(time)
    for k in range(1, int(_HIGHEST_HARMONIC_HZ / pitch_hz)):
        wave += _gain(k * pitch, formants, len(time)) / k**0.3 * np.sin(k * phase)
    return wave / max(np.abs(wave).max(), 1e-9)


def _gain(frequency_hz: np.ndarray, formants: list[np.ndarray], count: int) -> np.ndarray:
    """How loud a harmonic is: the sum of three resonances, worked out per frame and held between frames."""
    frames = np.arange(0, count, int(_FRAME_SECONDS * SAMPLE_RATE_HZ))
    gain = np.zeros(len(frames))
    for path, width_hz, loudness in zip(formants, _WIDTHS_HZ, _LOUDNESS, strict=True):
        gain += loudness / (1 + ((frequency_hz[frames] - path[frames]) / width_hz) ** 2)
    return np.interp(np.arange(count), frames, gain)


def _noise(names: Sequence[str], seconds: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """The hiss of every phone that has some: white noise cut to the phone's band, where the phone is."""
    noise, starts = np.zeros(count), np.cumsum(seconds) - seconds
    frequencies = np.fft.rfftfreq(count, 1 / SAMPLE_RATE_HZ)
    for name, start, length in zip(names, starts, seconds, strict=True):
        _, _, loudness, (low, high), _ = _PHONES[name]
        if loudness:
            spectrum = np.fft.rfft(rng.standard_normal(count)) * ((frequencies > low) & (frequencies < high))
            hiss = np.fft.irfft(spectrum, count)
            place = (np.arange(count) / SAMPLE_RATE_HZ - start) / length
            noise += loudness * hiss / hiss.std() / 3 * np.clip(8 * np.minimum(place, 1 - place), 0, 1)
    return noise
