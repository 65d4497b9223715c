"""Finds the assistant's answers in a conversation's text, from the chat template, and marks where they stand."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jinja2 import TemplateError

Conversation = list[dict[str, Any]]
Span = tuple[int, int]

OPEN, CLOSE = "\ufdd0", "\ufdd1"  # Unicode keeps these for use inside programs: they stand in no real text
_TAG = re.compile(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")


def render(processor: Any, conversations: Sequence[Conversation], **options: Any) -> list[str]:
    """Conversations as text, one placeholder per medium; `options` are those of `apply_chat_template`.

    Raises ValueError for a conversation that the template refuses, such as one with a system message.
    """
    try:
        return processor.apply_chat_template(list(conversations), tokenize=False, **options)
    except TemplateError as error:
        raise ValueError(f"`chat_template` refuses the conversation: {error}. Change its messages.") from error


def mark_answers(
    processor: Any, conversations: Sequence[Conversation], carry_loss: Sequence[Sequence[bool]]
) -> list[str]:
    """The text of each conversation, with OPEN and CLOSE around every answer that carries loss.

    carry_loss: per conversation, whether each of its assistant messages does. A template with `{% generation %}`
    says itself what an answer is; with others it is what one more message adds to the conversation so far with its
    generation prompt. The end-of-turn token belongs to it. Raises ValueError where the answers cannot be located.
    """
    _refuse_marks(conversations)
    template = getattr(processor, "chat_template", None)
    if isinstance(template, str) and _TAG.search(template):
        texts, spans = _spans_from_tags(processor, conversations, template)
    else:
        texts = render(processor, conversations)
        spans = [_spans_from_prefixes(processor, c, text) for c, text in zip(conversations, texts, strict=True)]
    return [_marked(*row) for row in zip(texts, spans, carry_loss, strict=True)]


def _marked(text: str, spans: list[Span], carry_loss: Sequence[bool]) -> str:
    pieces, last = [], 0
    for (start, end), carries in zip(spans, carry_loss, strict=True):
        if carries:
            pieces += [text[last:start], OPEN, text[start:end], CLOSE]
            last = end
    return "".join([*pieces, text[last:]])


def _refuse_marks(conversations: Sequence[Conversation]) -> None:
    texts = (part.get("text") or "" for messages in conversations for m in messages for part in m["content"])
    if found := next((text for text in texts if OPEN in text or CLOSE in text), None):
        raise ValueError(
            f"a message holds U+FDD0 or U+FDD1, which Unicode reserves for programs: {found!r:.80}. Remove them."
        )


def _spans_from_tags(
    processor: Any, conversations: Sequence[Conversation], template: str
) -> tuple[list[str], list[list[Span]]]:
    """Texts and answer spans, by rendering once with a character in place of each tag."""
    # A print statement: Jinja drops the same white space around it as around the tag that it replaces.
    marked_template = _TAG.sub(lambda tag: f"{{%{tag[1]} print '{CLOSE if tag[2] else OPEN}' {tag[3]}%}}", template)
    texts, spans = [], []
    for messages, marked in zip(
        conversations, render(processor, conversations, chat_template=marked_template), strict=True
    ):
        pieces = re.split(f"[{OPEN}{CLOSE}]", marked)
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
