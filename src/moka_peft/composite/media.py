"""Reads images, sorts the media of a batch to its rows, and cuts clips into segments.

An image is a PIL image, a path or an array [H, W] or [H, W, C]; a video a list of frames or an array [T, H, W, C];
a clip a mono waveform [samples], or [segments, samples] where it is cut already. Media of other kinds are arrays.
"""

import math
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
from PIL import Image
from transformers.models.auto.image_processing_auto import (
    AutoImageProcessor,
)  # 5.17 wants torchvision for the short name

from .placeholders import placeholder_of

Media = Sequence[Any]


def argument_of(kind: str) -> str:
    """The processor's keyword for media of a kind."""
    return f"{kind}s" if kind in IS_ITEM else kind


def load_image_processor(name: str, **kwargs: Any) -> Any:
    """An image processor that works with Pillow, so that pixels do not depend on whether torchvision is installed."""
    return AutoImageProcessor.from_pretrained(name, backend="pil", **kwargs)


def load_frame(image: Any) -> Any:
    """One image in RGB: a path is opened, one channel becomes three; arrays of three channels pass through."""
    if isinstance(image, str | PathLike):
        image = Image.open(image)
    elif isinstance(image, np.ndarray) and image.ndim == 2:
        image = Image.fromarray(image)
    return image.convert("RGB") if isinstance(image, Image.Image) else image


def cut_segments(clip: Any, segment_samples: int) -> list[np.ndarray]:
    """Cuts a waveform into segments of `segment_samples`, the last one possibly shorter.

    Raises ValueError for a clip that is empty, has more than two dimensions, or segments of another length.
    """
    clip = np.asarray(clip, dtype=np.float32)
    if clip.ndim not in (1, 2) or clip.size == 0:
        raise ValueError(
            f"`audios` holds a clip that is no waveform: expected [samples] or [segments, samples], got shape "
            f"{list(clip.shape)}. Mix several channels down to one first."
        )
    if clip.ndim == 2:
        if clip.shape[1] != segment_samples:
            raise ValueError(
                f"`audios` holds a clip whose segments have the wrong length: expected [segments, {segment_samples}] "
                f"samples, got {list(clip.shape)}. Cut it at `segment_seconds`, or pass the whole waveform [samples]."
            )
        return list(clip)
    count = math.ceil(len(clip) / segment_samples)
    return [clip[start * segment_samples : (start + 1) * segment_samples] for start in range(count)]


def is_image(value: Any) -> bool:
    """Whether this is one image rather than a list of them."""
    return not isinstance(value, list | tuple)


def is_video(value: Any) -> bool:
    """Whether this is one video rather than a list of them: an array [T, ...] or a list of frames."""
    if isinstance(value, list | tuple):
        return len(value) > 0 and is_image(value[0]) and getattr(value[0], "ndim", 3) < 4
    return True


def is_clip(value: Any) -> bool:
    """Whether this is one audio clip rather than a list of them."""
    return not isinstance(value, list | tuple) or (len(value) > 0 and isinstance(value[0], int | float))


def is_given(media: Any) -> bool:
    """Whether there is any medium: neither None nor lists of nothing."""
    return any(map(is_given, media)) if isinstance(media, list | tuple) else media is not None


def sort_to_rows(media: Media | None, per_row: list[int], name: str) -> list[Any]:
    """Checks that media fit the placeholders of their rows and returns them as one flat list.

    `media` is one item, a flat list, taken in order, or one list per row; `name` is their kind ("image", ...).
    `per_row` counts its placeholders in each row of the text. Raises ValueError naming the row and both counts
    where they differ.
    """
    is_item, argument = IS_ITEM.get(name, is_image), argument_of(name)
    items = [] if media is None else [media] if is_item(media) else list(media)
    nested = len(items) > 0 and not any(is_item(item) for item in items)
    if nested and len(items) != len(per_row):
        raise ValueError(f"`{argument}` has {len(items)} lists for {len(per_row)} rows of text. Pass one list per row.")
    rows = items if nested else _deal(items, per_row)
    for row, (expected, got) in enumerate(zip(per_row, rows, strict=True)):
        if expected != len(got):
            raise ValueError(
                f"`{argument}` do not fit row {row} of the text: expected {expected}, one for each "
                f"{placeholder_of(name)} in it, got {len(got)}. Give as many as the text has placeholders."
            )
    return [item for row in rows for item in row]


def _deal(items: list[Any], per_row: list[int]) -> list[list[Any]]:
    """Deals a flat list to rows in order; what is left over goes to the last row."""
    dealt, start = [], 0
    for count in per_row:
        dealt.append(items[start : start + count])
        start += count
    if dealt:
        dealt[-1] += items[start:]
    return dealt


IS_ITEM = {"image": is_image, "video": is_video, "audio": is_clip}
