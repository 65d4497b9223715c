"""Samples for the tests of collating and packing: media in every place, several turns, text alone."""

from typing import Any

import numpy as np
from PIL import Image

from moka_peft.data import Sample

SIZES = ((120, 60), (50, 90), (64, 64))
QUESTIONS, ANSWERS = ("What is it?", "Who? me!"), ("a cat.", "Nothing much.")


def medium(kind: str, index: int) -> dict[str, Any]:
    """A part of one medium; its content and size depend on `index`."""
    if kind == "image":
        noise = np.random.default_rng(index).integers(0, 256, (*SIZES[index % 3][::-1], 3), dtype=np.uint8)
        return {"type": kind, kind: Image.fromarray(noise)}
    if kind == "video":
        return {"type": kind, kind: np.full((8, 40, 60, 3), 80, dtype=np.uint8)}
    wave = np.sin(np.arange(16_000 * (1 + index % 2)) / (50 + index)).astype(np.float32)
    return {"type": kind, kind: wave, "sample_rate_hz": 16_000}


def conversation(name: str, *turns: list[Any]) -> Sample:
    """A sample: each turn is the parts of a question, text or media; the answers are ANSWERS, in order."""
    messages = []
    for parts, answer in zip(turns, ANSWERS, strict=False):
        content = [part if isinstance(part, dict) else {"type": "text", "text": part} for part in parts]
        messages += [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    return Sample(name, messages)


def mixed(kinds: tuple[str, ...]) -> list[Sample]:
    """Samples with media, without any between them, with two turns and several media."""
    one, other = (kinds * 2)[:2]
    return [
        conversation("one medium", [medium(one, 0), QUESTIONS[0]]),
        conversation("text alone", [QUESTIONS[1]]),
        conversation(
            "two turns", [medium(other, 1), QUESTIONS[1]], [QUESTIONS[0], medium(one, 2), medium(other, 3), "So?"]
        ),
        conversation("text turns", ["Left or right"], ["user"]),
        conversation("text first", ["Who is it?", medium(other, 5)]),
    ]
