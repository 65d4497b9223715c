"""Decodes pictures: upright, RGB, no larger than asked for."""

import math
import warnings
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from moka_peft.data.media.opening import Encoded, open_encoded

_WIDE = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # modes of 16-bit greys, which `convert` would clip to white


def load_image(medium: Encoded, max_pixels: int | None = None) -> Image.Image:
    """A picture as RGB: turned as its EXIF tag says, transparency on white, at most `max_pixels` large.

    A JPEG above the limit is decoded at a fraction of its size. Raises ValueError for a file that Pillow cannot
    read to its end, or of so many pixels that it may be an attack.
    """
    opened = open_encoded(medium, "image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(opened.file()) as image:
                if max_pixels:
                    image.draft(None, _limited(image.size, max_pixels))
                return upright_rgb(image, max_pixels)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"{opened.name} has too many pixels: {error}. Make it smaller, or remove the sample."
        ) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"{opened.name} cannot be read: {error}. Open it in an image viewer; "
            "replace or convert it (PNG and JPEG are safe choices), or remove the sample."
        ) from error


def upright_rgb(image: Image.Image, max_pixels: int | None = None) -> Image.Image:
    """An opened picture as `load_image` gives it."""
    image = _rgb(ImageOps.exif_transpose(image))
    if max_pixels and image.width * image.height > max_pixels:
        image = image.resize(_limited(image.size, max_pixels), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return image


def as_image(medium: Any, max_pixels: int | None = None) -> Any:
    """A picture that is in memory already: a PIL image or a uint8 array [H, W] or [H, W, 3 or 4]; else unchanged."""
    if isinstance(medium, np.ndarray):
        if medium.dtype != np.uint8 or medium.ndim not in (2, 3):
            raise ValueError(
                f"image array is wrong: expected uint8 [H, W, 3], got {medium.dtype} {list(medium.shape)}. Convert it."
            )
        medium = Image.fromarray(medium)
    return upright_rgb(medium, max_pixels) if isinstance(medium, Image.Image) else medium


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in _WIDE:
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("its pixels are fractions without an agreed range")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _limited(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """The largest size of the same shape within the limit."""
    scale = min(1.0, math.sqrt(max_pixels / (size[0] * size[1])))
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))
