"""Conversations made of known words, rendered and tokenised: what a routing spec is derived from and held to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, count, product
from typing import Any

# First and last characters differ, because plain-text delimiters merge with their neighbours in other ways.
USER_TEXTS = ("Quartz lemon", "violet kites?", "7 plums hum.", "(sage) otters 9", '"Dune" fox!')
SYSTEM_TEXT = "Basalt owls sing."
ANSWER_TEXTS = ("Cobalt wren", "umber 4.")
CAPTIONED_MEDIA = 8  # templates that number their media ("Picture 1: ") are read up to this number
SWITCHES = ("add_vision_id",)  # variables that make a template write such captions

Message = tuple[str, tuple[str, ...]]  # role, and parts: known texts or names of media kinds


@dataclass(frozen=True)
class Said:
    """Where one known text stands in a rendering. `role`: system, user or assistant; `turn`: user turns so far."""

    role: str
    turn: int
    start: int
    end: int


@dataclass(frozen=True)
class Rendering:
    """One conversation as text, with the known texts in it, and as tokens with their character offsets."""

    text: str
    said: tuple[Said, ...]
    has_media: bool
    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]

    def of(self, role: str, turn: int | None = None) -> list[Said]:
        """The texts of `role` (in `turn`), in the order of the rendering."""
        return [said for said in self.said if said.role == role and turn in (None, said.turn)]


def render_conversations(
    processor: Any, tokenizer: Any, placeholders: dict[str, str], expansions: Mapping[str, str] | None = None
) -> list[Rendering]:
    """Renders two-turn conversations: media first, text first and between texts, several kinds, with and without
    system message and generation prompt. `placeholders`: kind of content part -> text of its placeholder token;
    `expansions`: text that the processor replaces before it tokenises.

    A conversation that the template refuses (a system role, a kind of media) is left out. Raises the template's
    own error where it renders none.
    """
    inline = None if _takes_parts(processor) else placeholders
    renderings, error = [], None
    for messages, options in _conversations(tuple(placeholders), _template_text(processor)):
        openai = [{"role": role, "content": _content(parts, inline, placeholders)} for role, parts in messages]
        try:
            text = processor.apply_chat_template(openai, tokenize=False, **options)
        except Exception as refusal:  # each template refuses in its own way: any exception type
            error = refusal
            continue
        for written, expanded in (expansions or {}).items():
            text = text.replace(written, expanded)
        renderings += _tokenised(text, messages, tokenizer, set(placeholders))
    if not renderings and error is not None:
        raise error
    return renderings


def _conversations(kinds: tuple[str, ...], template: str) -> Iterator[tuple[list[Message], dict[str, bool]]]:
    switches = [{}, *({name: True} for name in SWITCHES if name in template)]
    layouts = list(_layouts(kinds))
    first_text = count()
    for (first, second), switch in product(layouts, switches):
        for system, ending in product((False, True), ("answer", "prompt", "open")):
            texts = (USER_TEXTS[index % len(USER_TEXTS)] for index in count(next(first_text)))
            messages: list[Message] = [("system", (SYSTEM_TEXT,))] if system else []
            messages.append(("user", tuple(next(texts) if part == "text" else part for part in first)))
            messages.append(("assistant", ANSWER_TEXTS[:1]))
            messages.append(("user", tuple(next(texts) if part == "text" else part for part in second)))
            if ending == "answer":
                messages.append(("assistant", ANSWER_TEXTS[1:]))
            yield messages, {"add_generation_prompt": ending == "prompt", **switch}


def _layouts(kinds: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Parts of the first and of the second user turn."""
    yield from [(("text",), ("text",))] * len(USER_TEXTS)
    for kind in kinds:
        yield (kind, "text"), ("text", kind)
        yield ("text", kind, "text"), (kind, kind, "text")
        yield ("text", *[kind] * CAPTIONED_MEDIA), ("text",)
    for one, other in combinations(kinds, 2):
        yield (one, other, "text"), ("text", other, one)
        yield ("text",), (other, "text", one)


def _content(parts: tuple[str, ...], inline: dict[str, str] | None, kinds: dict[str, str]) -> Any:
    if inline is not None:
        return "".join(inline.get(part, part) for part in parts)
    return [{"type": part} if part in kinds else {"type": "text", "text": part} for part in parts]


def _template_text(processor: Any) -> str:
    owners = (processor, getattr(processor, "tokenizer", None))
    return str(next(filter(None, (getattr(owner, "chat_template", None) for owner in owners)), ""))


def _takes_parts(processor: Any) -> bool:
    """Whether the template reads a list of content parts; one that does not refuses it or prints the Python list."""
    parts = [{"type": "text", "text": USER_TEXTS[0]}]
    try:
        text = processor.apply_chat_template([{"role": "user", "content": parts}], tokenize=False)
    except Exception:  # any type, as above
        return False
    return "'type'" not in text


def _tokenised(text: str, messages: list[Message], tokenizer: Any, kinds: set[str]) -> Iterator[Rendering]:
    """The rendering with and without the tokenizer's own special tokens; nothing where a known text is missing."""
    said, turn = [], 0
    for role, parts in messages:
        turn += role == "user"
        for known in (part for part in parts if part not in kinds):
            if text.count(known) != 1:
                return
            start = text.index(known)
            said.append(Said(role, turn, start, start + len(known)))
    in_order = tuple(sorted(said, key=lambda piece: piece.start))
    has_media = any(part in kinds for _, parts in messages for part in parts)
    for special in (True, False):
        tokens = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
        offsets = tuple((start, end) for start, end in tokens["offset_mapping"])
        yield Rendering(text, in_order, has_media, tuple(tokens["input_ids"]), offsets)
