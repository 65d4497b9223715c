"""Conversations with media parts as text that any chat template can render."""

from collections.abc import Collection
from typing import Any

from .placeholders import placeholder_of

Message = dict[str, Any]


def as_batch(conversation: list) -> tuple[list[list[Message]], bool]:
    """A list of conversations, and whether it was one already."""
    if conversation and isinstance(conversation[0], dict):
        return [conversation], False
    return list(conversation), True


def flatten_parts(messages: list[Message], kinds: Collection[str]) -> list[Message]:
    """Replaces each message's content parts by one string, media of these kinds by their placeholder.

    A chat template of a text-only model knows strings only. A string passes through. Raises ValueError for a part
    of unknown type.
    """
    return [{**message, "content": _flatten(message.get("content"), kinds)} for message in messages]


def media_of(messages: list[Message], kind: str) -> list[Any]:
    """The media of one kind ("image", "video", "audio", ...) in a conversation, in order."""
    parts = [part for message in messages for part in _parts(message.get("content"))]
    return [_payload(part, kind) for part in parts if part.get("type") == kind]


def _parts(content: Any) -> list[dict]:
    return content if isinstance(content, list) else []


def _flatten(content: Any, kinds: Collection[str]) -> str:
    """One message's content as a string."""
    return content if isinstance(content, str) else "".join(_as_text(part, kinds) for part in content or [])


def _as_text(part: dict, kinds: Collection[str]) -> str:
    """One content part as text."""
    kind = part.get("type")
    if kind == "text":
        return part["text"]
    if kind is None or kind not in kinds:
        raise ValueError(
            f"`messages` hold a content part of unknown type: expected 'text' or one of {sorted(kinds)}, got "
            f"{kind!r}. Name the part's type."
        )
    return placeholder_of(kind)


def _payload(part: dict, kind: str) -> Any:
    """What a media part carries, under its own name or as a `path`."""
    for key in (kind, "path"):
        if part.get(key) is not None:
            return part[key]
    raise ValueError(f"`messages` hold a part of type {kind!r} without content: expected the key {kind!r}. Add it.")
