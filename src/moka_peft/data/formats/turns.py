"""The turns of a conversation, checked: known roles, in order, with something to say, an answer at the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moka_peft.data.formats.parts import fill_tags, read_content
from moka_peft.data.formats.row import Row
from moka_peft.data.media.options import MediaOptions

OPENAI_ROLES = {"system": "system", "user": "user", "assistant": "assistant", "developer": "system"}
SHAREGPT_ROLES = OPENAI_ROLES | {"human": "user", "gpt": "assistant"}


@dataclass(frozen=True)
class Names:
    """What a format calls the list of turns, a turn's role and its content."""

    turns: str
    role: str
    content: str
    roles: Mapping[str, str]


OPENAI = Names("messages", "role", "content", OPENAI_ROLES)
SHAREGPT = Names("conversations", "from", "value", SHAREGPT_ROLES)


def read_turns(row: Row, names: Names, options: MediaOptions) -> list[dict[str, Any]]:
    """A row's messages with all media in place. Raises ValueError or FileNotFoundError."""
    turns = row.data.get(names.turns)
    if not isinstance(turns, list) or not turns:
        raise row.fail(names.turns, f"expected a list of messages, got {turns!r}. Give a question and its answer.")
    messages = [_read_turn(row, f"{names.turns}[{i}]", turn, names, options) for i, turn in enumerate(turns)]
    if names is SHAREGPT and isinstance(system := row.data.get("system"), str) and system:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
    fill_tags(row, messages, options)
    _check_order(row, names, [message["role"] for message in messages], first=len(turns) - len(messages))
    return _with_sound(messages) if options.video_sound else messages


def _read_turn(row: Row, field: str, turn: Any, names: Names, options: MediaOptions) -> dict[str, Any]:
    role = turn.get(names.role) if isinstance(turn, Mapping) else turn
    if not isinstance(turn, Mapping) or not isinstance(role, str) or role not in names.roles:
        known = ", ".join(name for name in names.roles if name != "developer")
        raise row.fail(f"{field}.{names.role}", f"expected one of {known}, got {role!r}. Correct the role.")
    field, role = f"{field}.{names.content}", names.roles[role]
    parts = read_content(row, field, turn.get(names.content), options)
    if role != "system" and not any(part["type"] != "text" or part["text"].strip() for part in parts):
        raise row.fail(field, f"is empty: expected what the {role} says. Add it, or remove the row.")
    if role == "assistant" and (media := [part["type"] for part in parts if part["type"] != "text"]):
        raise row.fail(
            field, f"an answer holds `<{media[0]}>`: expected text alone. Write it differently, or ask with it."
        )
    message = {"role": role, "content": parts}
    loss = turn.get("loss", True)
    if (weight := turn.get("weight")) not in (None, 0, 1):  # OpenAI's word for it
        raise row.fail(f"{field.rsplit('.', 1)[0]}.weight", f"expected 0 or 1, got {weight!r}. Correct it.")
    if not isinstance(loss, bool):
        raise row.fail(f"{field.rsplit('.', 1)[0]}.loss", f"expected true or false, got {loss!r}. Correct it.")
    return message if loss and weight != 0 else message | {"loss": False}


def _check_order(row: Row, names: Names, roles: Sequence[str], first: int) -> None:
    """Raises ValueError unless user and assistant alternate, after at most one system message.

    first: the place, in the row's own list, of the first role: -1 where the system message stands outside it.
    """
    expected = "user"
    for place, role in enumerate(roles, start=first):
        if role == "system" and place == first:
            continue
        if role != expected:
            raise row.fail(
                f"{names.turns}[{place}].{names.role}",
                f"expected a message of the {expected} here, got {role}: they take turns, after at most one system "
                "message. Join messages that follow each other, or add the missing one.",
            )
        expected = "assistant" if expected == "user" else "user"
    if roles[-1] != "assistant":
        raise row.fail(
            f"{names.turns}[{len(roles) - 1 + first}].{names.role}",
            f"expected the last message to be the assistant's, got {roles[-1]}. Add the answer.",
        )


def _with_sound(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with each video's sound track behind it."""
    return [message | {"content": [p for part in message["content"] for p in _sounding(part)]} for message in messages]


def _sounding(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [part, {"type": "audio", "audio": part["video"]}] if part["type"] == "video" else [part]
