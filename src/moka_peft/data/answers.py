"""Finds which tokens of a conversation are the assistant's answers, from the chat template."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

_GENERATION = re.compile(r"{%-?\s*generation\s*-?%}")
Conversation = list[dict[str, Any]]


def render(processor: Any, conversations: Sequence[Conversation], add_generation_prompt: bool) -> list[str]:
    """The conversations as text, one placeholder per medium."""
    template = chat_template(processor)
    return processor.tokenizer.apply_chat_template(
        list(conversations),
        chat_template=template,
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
    )


def chat_template(processor: Any) -> str:
    """The template of a processor, or of its tokenizer; raises ValueError where neither has one."""
    template = getattr(processor, "chat_template", None) or processor.tokenizer.chat_template
    if not isinstance(template, str):
        raise ValueError(
            f"`processor` {type(processor).__name__} has no single chat template: expected a string, "
            f"got {type(template).__name__}. Set `processor.chat_template`."
        )
    return template


def mark_answers(
    processor: Any, conversations: Sequence[Conversation]
) -> tuple[list[str], list[np.ndarray], list[np.ndarray]]:
    """Texts, their token ids before media are expanded, and per token whether it is answer (its end included).

    A template with `{% generation %}` marks its answers itself. Otherwise an answer is what rendering one
    more message adds to the conversation so far with its generation prompt.
    """
    texts = render(processor, conversations, add_generation_prompt=False)
    if _GENERATION.search(template := chat_template(processor)):
        encoded = processor.tokenizer.apply_chat_template(
            list(conversations),
            chat_template=template,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        masks = [np.array(mask, dtype=bool) for mask in encoded["assistant_masks"]]
        return texts, [np.array(ids) for ids in encoded["input_ids"]], masks
    encoded = processor.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    spans = [answer_spans(processor, messages, text) for messages, text in zip(conversations, texts, strict=True)]
    masks = [_inside(np.array(o), s) for o, s in zip(encoded["offset_mapping"], spans, strict=True)]
    return texts, [np.array(ids) for ids in encoded["input_ids"]], masks


def answer_spans(processor: Any, messages: Conversation, text: str) -> list[tuple[int, int]]:
    """Character spans of the assistant's messages, found by rendering growing prefixes.

    Raises ValueError where the template renders a prefix of the conversation differently.
    """
    spans = []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            prompt = render(processor, [messages[:i]], add_generation_prompt=True)[0]
            answered = render(processor, [messages[: i + 1]], add_generation_prompt=False)[0]
            if not (answered.startswith(prompt) and text.startswith(answered)):
                raise ValueError(
                    "`chat_template` renders earlier turns differently when more follow, so the answers "
                    "cannot be located. Put {% generation %} ... {% endgeneration %} around the answer in it."
                )
            spans.append((len(prompt), len(answered)))
    return spans


def _inside(offsets: np.ndarray, spans: list[tuple[int, int]]) -> np.ndarray:
    """Which tokens, given their characters [tokens, 2], start in one of the spans."""
    inside = np.zeros(len(offsets), dtype=bool)
    for start, end in spans:
        inside |= (offsets[:, 0] >= start) & (offsets[:, 0] < end)
    return inside
