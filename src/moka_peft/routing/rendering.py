"""Conversations made of known words, rendered and tokenised: what a routing spec is derived from and held to."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .expansion import expand
from .messages import SHAPES, Conversation, conversations, single_turns

PRINTED_PARTS = ("'type': 'text'", '"type": "text"')  # a template of strings prints the list that it was given


@dataclass(frozen=True)
class Said:
    """Where one known text stands in a rendering. `role`: system, user, assistant, call or tool; `turn`: user turns
    so far."""

    role: str
    turn: int
    start: int
    end: int


@dataclass(frozen=True)
class Rendering:
    """One conversation as text, with the known texts in it, and as tokens with their character offsets.

    `plain`: whether nothing but text is said in it, by the template's default settings.
    """

    text: str
    said: tuple[Said, ...]
    plain: bool
    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]

    def of(self, role: str, turn: int | None = None) -> list[Said]:
        """The texts of `role` (in `turn`), in the order of the rendering."""
        return [said for said in self.said if said.role == role and turn in (None, said.turn)]


def render_conversations(
    processor: Any,
    tokenizer: Any,
    placeholders: dict[str, str],
    expansions: Mapping[str, str] | None = None,
    *,
    single: bool = False,
) -> list[Rendering]:
    """Renders and tokenises conversations of known texts, of two turns or a `single` one. `placeholders`: kind of
    content part -> text of its placeholder token; `expansions`: text that the processor replaces before it tokenises.

    A conversation that the template refuses (a system role, a kind of media, a tool) is left out. Raises the
    template's own error where it renders none.
    """
    renderings, error = [], None
    written = _written(processor, placeholders, expansions or {})
    kinds = tuple(placeholders)
    for conversation in single_turns(kinds) if single else conversations(kinds, _template_text(processor)):
        try:
            text = _rendered(processor, conversation, placeholders, written)
        except Exception as refusal:  # each template refuses in its own way: any exception type
            error = error or refusal
            continue
        renderings += _tokenised(expand(text, expansions or {}), conversation, tokenizer, set(placeholders))
    if not renderings and error is not None:
        raise error
    return renderings


def _written(processor: Any, placeholders: Mapping[str, str], expansions: Mapping[str, str]) -> set[str]:
    """What a template may write for a medium."""
    named = (getattr(processor, f"{kind}_token", None) for kind in placeholders)
    return {*placeholders.values(), *expansions, *(text for text in named if isinstance(text, str))}


def _template_text(processor: Any) -> str:
    owners = (processor, getattr(processor, "tokenizer", None))
    return str(next(filter(None, (getattr(owner, "chat_template", None) for owner in owners)), ""))


def _rendered(processor: Any, conversation: Conversation, placeholders: dict[str, str], written: set[str]) -> str:
    """The conversation in the first shape that shows all that is said, else in the first that the template takes.

    Raises the template's first error where it takes none.
    """
    texts, error = [], None
    calls = any(role == "call" for role, _ in conversation.messages)
    for shape in (shape for shape in SHAPES if calls or not shape.json_arguments):
        messages = shape.shaped(conversation, placeholders)
        try:
            texts.append(processor.apply_chat_template(messages, tokenize=False, **conversation.options))
        except Exception as refusal:  # any type, as above
            error = error or refusal
            continue
        if _shows(texts[-1], conversation, set(placeholders), written):
            return texts[-1]
    if not texts and error is not None:
        raise error
    return texts[0]


def _shows(text: str, conversation: Conversation, kinds: Container[str], written: set[str]) -> bool:
    parts = [part for role, parts in conversation.messages if role != "call" for part in parts]
    media = sum(part in kinds for part in parts)
    return (
        not any(printed in text for printed in PRINTED_PARTS)
        and all(text.count(part) == 1 for part in parts if part not in kinds)
        and sum(map(text.count, written)) >= media
    )


def _tokenised(text: str, conversation: Conversation, tokenizer: Any, kinds: Container[str]) -> Iterator[Rendering]:
    """The rendering with and without the tokenizer's own special tokens; nothing where a known text is missing."""
    said, turn = [], 0
    for role, parts in conversation.messages:
        turn += role == "user"
        for known in (part for part in parts if part not in kinds):
            if text.count(known) == 1:
                start = text.index(known)
                said.append(Said(role, turn, start, start + len(known)))
            elif role != "call":  # a template may leave out what a tool is called with
                return
    in_order = tuple(sorted(said, key=lambda piece: piece.start))
    seen = set()
    for special in (True, False):
        tokens = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
        ids, offsets = tuple(tokens["input_ids"]), tuple((start, end) for start, end in tokens["offset_mapping"])
        if ids not in seen:
            seen.add(ids)
            yield Rendering(text, in_order, conversation.plain, ids, offsets)
