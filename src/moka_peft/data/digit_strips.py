"""Draws the images of `av_digits`: strips of real handwritten digits, held apart between splits."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

DIGITS_PER_STRIP = 4
CELL_PIXELS = 32
_SPLIT_OF_NINTH = {"align": (0, 1, 2, 3), "train": (4, 5, 6), "test": (7, 8)}
SPLITS = tuple(_SPLIT_OF_NINTH)


@dataclass(frozen=True)
class Digits:
    """The 1797 handwritten digits of scikit-learn, enlarged: cells uint8 [1797, 32, 32], labels int [1797]."""

    cells: np.ndarray
    labels: np.ndarray


@cache
def digits() -> Digits:
    """Loads the digits once; raises ImportError, naming the extra to install, without scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "`av_digits` needs scikit-learn for its handwritten digits. Run: pip install 'moka-peft[demo]'"
        ) from error
    data: Any = load_digits()
    small = (data.images * (255 / 16)).astype(np.uint8)
    size = (CELL_PIXELS, CELL_PIXELS)
    cells = [np.asarray(Image.fromarray(i).resize(size, Image.Resampling.BILINEAR)) for i in small]
    return Digits(np.stack(cells), data.target)


@cache
def images_of(split: str) -> dict[int, np.ndarray]:
    """Which images a split may use: {digit: indices into `digits()`}. No image is in two splits."""
    if split not in _SPLIT_OF_NINTH:
        raise ValueError(f"`split` is unknown: expected one of {', '.join(SPLITS)}, got {split}.")
    labels = digits().labels
    inside = np.isin(np.arange(len(labels)) % 9, _SPLIT_OF_NINTH[split])
    return {digit: np.flatnonzero(inside & (labels == digit)) for digit in range(10)}


def draw_strip(indices: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Images side by side, grey, 32 x 128 pixels, with a random contrast and shift of up to two pixels."""
    strip = np.concatenate(list(digits().cells[indices]), axis=1).astype(np.float32)
    strip = np.roll(strip, tuple(rng.integers(-2, 3, size=2)), axis=(0, 1)) * rng.uniform(0.7, 1.0)
    return Image.fromarray(strip.astype(np.uint8))
