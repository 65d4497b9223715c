"""The placeholders `<image>`, `<video>`, `<audio>` and others in text: counting them, making room for embeddings."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np


def placeholder_of(kind: str) -> str:
    """What stands for one medium of a kind in text."""
    return f"<{kind}>"


PLACEHOLDERS = {kind: placeholder_of(kind) for kind in ("image", "video", "audio")}


def repeat_placeholders(texts: list[str], tokens: dict[str, list[int]]) -> tuple[list[str], list[list[dict]]]:
    """Repeats each placeholder to the number of embeddings of its media.

    `tokens` holds, by kind, one number per image, video or clip, in the order of the placeholders over all texts.
    Returns the texts and, per text, where each placeholder stood and stands now, in characters (transformers'
    `text_replacement_offsets`).
    """
    queues = {placeholder_of(kind): (kind, iter(numbers)) for kind, numbers in tokens.items()}
    results = [_repeat_in(text, queues) for text in texts]
    return [text for text, _ in results], [offsets for _, offsets in results]


def check_ids(tokenizer: Any, input_ids: Any, texts: list[str], kinds: Iterable[str]) -> None:
    """Raises ValueError where the tokenizer lost placeholders: their embeddings would have no place."""
    for token in map(placeholder_of, kinds):
        token_id = tokenizer.convert_tokens_to_ids(token)
        for row, (ids, text) in enumerate(zip(input_ids, texts, strict=True)):
            expected, got = text.count(token), np.count_nonzero(np.asarray(ids) == token_id)
            if expected > got:
                raise ValueError(
                    f"row {row} of the text lost {token} tokens: expected {expected}, got {got}. Do not truncate, or "
                    f"raise `max_length`; {token} must be a special token of the tokenizer."
                )


def _repeat_in(text: str, queues: dict[str, tuple[str, Iterator[int]]]) -> tuple[str, list[dict]]:
    """One text with its placeholders repeated, and where they went."""
    pieces, offsets, last, grown = [], [], 0, 0
    for match in re.finditer("|".join(map(re.escape, queues)), text) if queues else ():
        (name, numbers), (start, end) = queues[match.group()], match.span()
        repeated = match.group() * next(numbers)
        new_span = (start + grown, start + grown + len(repeated))
        offsets.append(
            {"type": name, "span": (start, end), "new_span": new_span, "text": match.group(), "replacement": repeated}
        )
        pieces += [text[last:start], repeated]
        grown += len(repeated) - (end - start)
        last = end
    return "".join([*pieces, text[last:]]), offsets
