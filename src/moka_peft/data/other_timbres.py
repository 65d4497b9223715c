"""Other instruments under the names of the four of `av_digits`: what they have in common is the way they sound on."""

import numpy as np


def flute(pitch_hz: float, seconds: np.ndarray) -> np.ndarray:
    """A soft attack and vibrato; odd harmonics, as in a stopped pipe."""
    phase = 2 * np.pi * pitch_hz * seconds + 1.5 * np.sin(2 * np.pi * 6 * seconds)
    return np.minimum(1.0, seconds / 0.10) * (np.sin(phase) + 0.5 * np.sin(3 * phase) + 0.2 * np.sin(5 * phase))


def organ(pitch_hz: float, seconds: np.ndarray) -> np.ndarray:
    """Octaves only, steady, with a slow beat."""
    ratios = np.array([1.0, 2.0, 4.0, 8.0])[:, None]
    partials = np.sin(2 * np.pi * pitch_hz * ratios * seconds) / ratios**0.3
    return np.minimum(1.0, seconds / 0.02) * (1 + 0.4 * np.sin(2 * np.pi * 9 * seconds)) * partials.sum(axis=0)


def bell(pitch_hz: float, seconds: np.ndarray) -> np.ndarray:
    """Inharmonic partials, the higher ones louder, that die away at once."""
    ratios, weights = np.array([1.0, 1.47, 2.09, 3.56])[:, None], np.array([0.4, 0.6, 1.0, 0.8])[:, None]
    partials = weights * np.sin(2 * np.pi * pitch_hz * ratios * seconds)
    return np.exp(-16 * seconds) * partials.sum(axis=0)


def string(pitch_hz: float, seconds: np.ndarray) -> np.ndarray:
    """A muted string: three harmonics that swell and fade."""
    harmonics = np.arange(1, 4)[:, None]
    partials = np.sin(2 * np.pi * pitch_hz * harmonics * seconds) / harmonics
    return np.minimum(1.0, seconds / 0.04) * np.exp(-6 * seconds) * partials.sum(axis=0)
