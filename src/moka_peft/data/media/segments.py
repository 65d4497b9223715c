"""Pieces of a recording, spread over all of it: what a model hears of one that is too long to be heard whole."""

import numpy as np


def spread_segments(waveform: np.ndarray, count: int, seconds: float, rate_hz: int) -> np.ndarray:
    """`count` pieces of a mono waveform [samples], as float32 [count, samples of `seconds`].

    Of a recording of D seconds, piece k begins at k D / count + 0.5 - seconds / 2; what lies outside is silence. For
    ten pieces this is MokA's rule: 2 of each 6 seconds of a minute, from -0.5 on, and the whole of ten seconds in
    pieces of 1.
    """
    size, total = round(seconds * rate_hz), len(waveform) / rate_hz
    starts = [round((k * total / count + 0.5 - seconds / 2) * rate_hz) for k in range(count)]
    pieces = np.zeros((count, size), dtype=np.float32)
    for piece, start in zip(pieces, starts, strict=True):
        first, last = max(start, 0), min(start + size, len(waveform))
        if first < last:
            piece[first - start : last - start] = waveform[first:last]
    return pieces
