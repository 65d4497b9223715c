"""What a processor writes in place of media: placeholders, and with some models marker tokens, line ends and times."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

IMAGE_SIZE = (96, 48)  # width, height in pixels; not square, so that tiles come in rows and columns
VIDEO_FRAMES = 8
AUDIO_SECONDS = 2
KEPT_REPEATS = 3


def media_expansions(processor: Any, tokenizer: Any, placeholders: Mapping[str, str]) -> dict[str, str]:
    """{text of a medium in a rendered chat: what the processor makes of it}, runs of placeholders cut short.

    Only what the processor does more than to repeat the placeholder. `placeholders`: kind of media -> its token.
    Raises ValueError where it fails on an image or a sound: what it writes for them would be unknown. On a video that
    it cannot be asked about, the template alone is read: sampling its frames takes more than the frames.
    """
    found: dict[str, str] = {}
    for kind in placeholders:
        written = getattr(processor, f"{kind}_token", None)
        media = _dummy(processor, kind)
        if not isinstance(written, str) or not media:
            continue
        try:
            ids = processor(text=[written], add_special_tokens=False, **media)["input_ids"][0]
        except Exception as error:  # processors raise anything on what they do not take
            if kind == "video":
                continue
            raise ValueError(f"the processor fails on {written!r} with one {kind}: {error}") from error
        media_tokens = re.compile("|".join(map(re.escape, placeholders.values())))  # a video may be written as images
        expanded = tokenizer.decode(ids, skip_special_tokens=False)
        if media_tokens.search(expanded) and media_tokens.sub("", expanded):
            repeated = rf"({media_tokens.pattern})\1{{{KEPT_REPEATS},}}"
            found[written] = re.sub(repeated, lambda match: match[1] * KEPT_REPEATS, expanded)
    return found


def expand(text: str, expansions: Mapping[str, str]) -> str:
    """The rendered chat as the processor tokenises it; what it wrote is not expanded again."""
    if not expansions:
        return text
    return re.sub("|".join(map(re.escape, expansions)), lambda match: expansions[match[0]], text)


def _dummy(processor: Any, kind: str) -> dict[str, Any]:
    """One black image, video or silent sound, as the processor takes it; empty where it has no part for it."""
    width, height = IMAGE_SIZE
    if kind == "image" and getattr(processor, "image_processor", None) is not None:
        from PIL import Image

        return {"images": [Image.new("RGB", IMAGE_SIZE)]}
    if kind == "video" and getattr(processor, "video_processor", None) is not None:
        return {"videos": [np.zeros((VIDEO_FRAMES, height, width, 3), dtype=np.uint8)]}
    extractor = getattr(processor, "feature_extractor", None) or getattr(processor, "audio_processor", None)
    if kind == "audio" and extractor is not None:
        rate = getattr(extractor, "sampling_rate", 16_000)
        return {"audio": [np.zeros(AUDIO_SECONDS * rate, dtype=np.float32)]}
    return {}


def with_siblings(tokens: Iterable[int], special: Mapping[int, str]) -> set[int]:
    """`tokens` and the special tokens that differ from one of them in digits alone, such as <row_2_col_3>."""
    patterns = {_without_digits(special[token]) for token in tokens if token in special}
    numbered = {pattern for pattern in patterns if "0" in pattern}
    return {token for token, text in special.items() if _without_digits(text) in numbered} | set(tokens)


def _without_digits(text: str) -> str:
    return re.sub(r"\d+", "0", text)
