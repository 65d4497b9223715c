"""What a processor writes in place of an image: placeholders, and with some models marker tokens and line ends."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

IMAGE_SIZE = (96, 48)  # width, height in pixels; not square, so that tiles come in rows and columns
KEPT_REPEATS = 3


def image_expansion(processor: Any, tokenizer: Any, placeholder: str) -> dict[str, str]:
    """{text of an image in a rendered chat: what the processor makes of it}, runs of `placeholder` cut short.

    Empty where the processor only repeats the placeholder, and where it cannot be asked about an image.
    """
    from PIL import Image

    written = getattr(processor, "image_token", None)
    if not isinstance(written, str) or getattr(processor, "image_processor", None) is None:
        return {}
    image = Image.new("RGB", IMAGE_SIZE)
    try:
        ids = processor(text=[written], images=[image], add_special_tokens=False)["input_ids"][0]
    except Exception:  # processors raise anything on what they do not take; then the template alone is read
        return {}
    expanded = tokenizer.decode(ids, skip_special_tokens=False)
    repeated = f"(?:{re.escape(placeholder)}){{{KEPT_REPEATS},}}"
    expanded = re.sub(repeated, lambda _: placeholder * KEPT_REPEATS, expanded)
    return {written: expanded} if placeholder in expanded and expanded.replace(placeholder, "") else {}


def with_siblings(tokens: Iterable[int], special: Mapping[int, str]) -> set[int]:
    """`tokens` and the special tokens that differ from one of them in digits alone, such as <row_2_col_3>."""
    patterns = {_without_digits(special[token]) for token in tokens if token in special}
    numbered = {pattern for pattern in patterns if "0" in pattern}
    return {token for token, text in special.items() if _without_digits(text) in numbered} | set(tokens)


def _without_digits(text: str) -> str:
    return re.sub(r"\d+", "0", text)
