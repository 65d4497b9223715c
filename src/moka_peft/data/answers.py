"""Finds which tokens of a conversation are the assistant's answers, from the chat template."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

Conversation = list[dict[str, Any]]
Span = tuple[int, int]

_TAG = re.compile(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")
_OPEN, _CLOSE = "\ue000", "\ue001"  # private-use characters: they stand in no real text


def render(processor: Any, conversations: Sequence[Conversation], **options: Any) -> list[str]:
    """Conversations as text, one placeholder per medium; `options` are those of `apply_chat_template`."""
    return processor.apply_chat_template(list(conversations), tokenize=False, **options)


def mark_answers(
    processor: Any, conversations: Sequence[Conversation]
) -> tuple[list[str], list[np.ndarray], list[np.ndarray]]:
    """Per conversation its text, its token ids before media are expanded, and which of these are answer.

    A template with `{% generation %}` says itself what an answer is; with others it is what one more message
    adds to the conversation so far with its generation prompt. The end-of-turn token belongs to it.
    """
    template = getattr(processor, "chat_template", None)
    if isinstance(template, str) and _TAG.search(template):
        texts, spans = _spans_from_tags(processor, conversations, template)
    else:
        texts = render(processor, conversations)
        spans = [_spans_from_prefixes(processor, c, text) for c, text in zip(conversations, texts, strict=True)]
    encoded = processor.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    masks = [_starts_inside(np.array(o), s) for o, s in zip(encoded["offset_mapping"], spans, strict=True)]
    return texts, [np.array(ids) for ids in encoded["input_ids"]], masks


def _spans_from_tags(
    processor: Any, conversations: Sequence[Conversation], template: str
) -> tuple[list[str], list[list[Span]]]:
    """Texts and answer spans, by rendering once with a character in place of each tag."""
    # A print statement: Jinja drops the same white space around it as around the tag that it replaces.
    marked_template = _TAG.sub(lambda tag: f"{{%{tag[1]} print '{_CLOSE if tag[2] else _OPEN}' {tag[3]}%}}", template)
    texts, spans = [], []
    for messages, marked in zip(
        conversations, render(processor, conversations, chat_template=marked_template), strict=True
    ):
        pieces = re.split(f"[{_OPEN}{_CLOSE}]", marked)
        answers = sum(message["role"] == "assistant" for message in messages)
        if len(pieces) != 2 * answers + 1:
            raise ValueError(
                f"`chat_template` marks {len(pieces) // 2} answers: expected {answers}, one per assistant message. "
                "Put {% generation %} ... {% endgeneration %} around each, or remove the tags."
            )
        ends = np.cumsum([len(piece) for piece in pieces])
        texts.append("".join(pieces))
        spans.append([(int(ends[i]), int(ends[i + 1])) for i in range(0, 2 * answers, 2)])
    return texts, spans


def _spans_from_prefixes(processor: Any, messages: Conversation, text: str) -> list[Span]:
    """Answer spans in `text`, by rendering growing prefixes of the conversation.

    Raises ValueError where the template renders a prefix differently from the whole.
    """
    spans = []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            (prompt,) = render(processor, [messages[:i]], add_generation_prompt=True)
            (answered,) = render(processor, [messages[: i + 1]])
            if not (answered.startswith(prompt) and text.startswith(answered)):
                raise ValueError(
                    "`chat_template` renders a turn differently when more follows, so the answers cannot be "
                    "located. Put {% generation %} ... {% endgeneration %} around the answer in the template."
                )
            spans.append((len(prompt), len(answered)))
    return spans


def _starts_inside(offsets: np.ndarray, spans: list[Span]) -> np.ndarray:
    """Which tokens, given their characters [tokens, 2], start inside one of the spans."""
    starts = offsets[:, 0]
    return np.any([(starts >= start) & (starts < end) for start, end in spans], axis=0)
