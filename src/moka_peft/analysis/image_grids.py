"""Where the tokens of an image lie in it, for models whose image tokens are the patches of their encoder."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from moka_peft.data import MediaOptions, Sample
from moka_peft.data.media.loading import load_media

SHOWN_PIXELS = 512  # of the longer side in the result
TOLERANCE = 0.02  # of the ratio of an image's sides: a cropped image would lie elsewhere in the grid


def image_grids(model: Any, sample: Sample, visual: Sequence[int], media: MediaOptions) -> list[dict[str, Any]]:
    """Per image: `grid` (rows, columns) of its patches, `first` of them among the media tokens, and itself as a `png`.

    visual: the places of all visual tokens among the media tokens, in reading order. Empty where the tokens are not
    known to be patches: queries of a Q-Former, merged or cropped patches, videos.
    """
    grid, count = patch_grid(model.config), len(sample.media("image"))
    if grid is None or not count or sample.media("video") or len(visual) != count * grid[0] * grid[1]:
        return []
    images = load_media(sample, "image", media, None)
    if any(abs(image.width / image.height * grid[0] / grid[1] - 1) > TOLERANCE for image in images):
        return []
    firsts = visual[:: grid[0] * grid[1]]
    return [{"first": first, "grid": grid, "png": _png(image)} for first, image in zip(firsts, images, strict=True)]


def patch_grid(config: Any) -> list[int] | None:
    """Rows and columns of an image encoder's patches; None where the configuration does not tell."""
    encoder = getattr(config, "vision_config", None)
    size, patch = getattr(encoder, "image_size", None), getattr(encoder, "patch_size", None)
    if size is None or patch is None:
        return None
    (height, width), (high, wide) = (
        value if isinstance(value, list | tuple) else (value,) * 2 for value in (size, patch)
    )
    return [height // high, width // wide]


def _png(image: Image.Image) -> str:
    """The image, made smaller where it is large, in base64."""
    shown, file = image.convert("RGB"), io.BytesIO()
    shown.thumbnail((SHOWN_PIXELS, SHOWN_PIXELS))
    shown.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
