"""Changes the looks and sounds of `av_digits`, each medium by itself, so that a model must adapt to it again."""

import numpy as np
from PIL import Image

IMAGES = ("plain", "inverted", "noisy", "inverted_noisy")
"""Light digits on dark; dark on light; fainter under grain; both."""

_CONTRAST, _GRAIN = 0.6, 48.0  # of 255
_HISS = 0.05  # of full loudness, twelve times the plain clips'


def shift_image(image: Image.Image, how: str, rng: np.random.Generator) -> Image.Image:
    """The image as one of `IMAGES`."""
    if how == "plain":
        return image
    pixels = np.asarray(image, dtype=np.float32)
    if how.startswith("inverted"):
        pixels = 255 - pixels
    if how.endswith("noisy"):
        grain = rng.standard_normal(pixels.shape, dtype=np.float32) * _GRAIN
        pixels = 127.5 + (pixels - 127.5) * _CONTRAST + grain
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def shift_sound(clip: np.ndarray, how: str, rng: np.random.Generator) -> np.ndarray:
    """The recording under hiss, where `how` is a noisy one of `SOUNDS`."""
    if not how.endswith("noisy"):
        return clip
    return clip + _HISS * rng.standard_normal(len(clip), dtype=np.float32)
