"""Synthesises the recordings of `av_digits`: sequences of notes in four timbres, 16 kHz mono."""

from functools import cache

import numpy as np

from moka_peft.data import other_timbres

TIMBRES = ("flute", "organ", "bell", "string")
SAMPLE_RATE_HZ = 16_000
CLIP_SECONDS = 1.8
MAX_NOTES = 4
_NOTE_SAMPLES = int(0.32 * SAMPLE_RATE_HZ)
SLOT_SAMPLES = int(0.42 * SAMPLE_RATE_HZ)
SOUNDS = ("plain", "other", "noisy", "other_noisy")
"""The timbres below; those of `other_timbres`, a fourth lower; either under hiss."""

_PITCHES_HZ = 220.0 * 2.0 ** (np.arange(0, 25, 2) / 12)  # whole tones over two octaves
_OTHER_PITCH = 0.75
_NOISE_AMPLITUDE = 0.004


def play(timbres: tuple[str, ...], rng: np.random.Generator, sounds: str = "plain") -> np.ndarray:
    """One recording, float32 [CLIP_SECONDS * SAMPLE_RATE_HZ]: the notes in order, each with its own pitch,
    loudness and onset, over faint noise. Notes never overlap, so their number can be counted. sounds: one of
    `SOUNDS`; the hiss of a noisy one is added elsewhere."""
    clip = rng.standard_normal(int(CLIP_SECONDS * SAMPLE_RATE_HZ), dtype=np.float32)
    clip *= _NOISE_AMPLITUDE
    onsets = rng.integers(0, SLOT_SAMPLES - _NOTE_SAMPLES, size=len(timbres))
    pitches = rng.integers(0, len(_PITCHES_HZ), size=len(timbres))
    loudness = rng.uniform(0.3, 0.6, size=len(timbres)).astype(np.float32)
    is_other = sounds.startswith("other")
    for slot, timbre in enumerate(timbres):
        start = slot * SLOT_SAMPLES + onsets[slot]
        clip[start : start + _NOTE_SAMPLES] += loudness[slot] * _note(timbre, int(pitches[slot]), is_other)
    return clip


@cache
def _note(timbre: str, pitch: int, is_other: bool = False) -> np.ndarray:
    """One note at full loudness, float32 [_NOTE_SAMPLES]; kept, because synthesis costs 10x the mixing."""
    seconds = np.arange(_NOTE_SAMPLES) / SAMPLE_RATE_HZ
    own = {"flute": _flute, "organ": _organ, "bell": _bell, "string": _string}
    synthesise = getattr(other_timbres, timbre) if is_other else own[timbre]
    wave = synthesise(_PITCHES_HZ[pitch] * (_OTHER_PITCH if is_other else 1), seconds)
    release = np.minimum(1.0, (seconds[-1] - seconds) / 0.02)
    return (wave / np.abs(wave).max() * release).astype(np.float32)


def _flute(pitch_hz: float, seconds: np.ndarray) -> np.ndarray:
    """A soft attack, nearly a pure tone."""
    phase = 2 * np.pi * pitch_hz * seconds
    return np.minimum(1.0, seconds / 0.06) * (np.sin(phase) + 0.15 * np.sin(2 * phase))


def _organ(pitch_hz: float, seconds: np.ndarray) -> np.ndarray:
    """Ten harmonics, bright and steady."""
    harmonics = np.arange(1, 11)[:, None]
    phases = 2 * np.pi * pitch_hz * harmonics * seconds
    return np.minimum(1.0, seconds / 0.02) * (np.sin(phases) / harmonics**0.5).sum(axis=0)


def _bell(pitch_hz: float, seconds: np.ndarray) -> np.ndarray:
    """Inharmonic partials that ring out."""
    ratios, weights = np.array([1.0, 2.76, 5.40])[:, None], np.array([1.0, 0.7, 0.5])[:, None]
    partials = weights * np.sin(2 * np.pi * pitch_hz * ratios * seconds)
    return np.exp(-9 * seconds) * partials.sum(axis=0)


def _string(pitch_hz: float, seconds: np.ndarray) -> np.ndarray:
    """A plucked string: eight harmonics, the higher ones dying away faster."""
    harmonics = np.arange(1, 9)[:, None]
    partials = np.sin(2 * np.pi * pitch_hz * harmonics * seconds) / harmonics**0.7
    return (np.exp(-(6 + 4 * harmonics) * seconds) * partials).sum(axis=0)
