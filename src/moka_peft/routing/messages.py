"""Conversations made of known words, and the shapes in which chat templates take them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations, count
from typing import Any

# First and last characters differ, because plain-text delimiters merge with their neighbours in other ways.
USER_TEXTS = ("Quartz lemon", "violet kites?", "7 plums hum.", "(sage) otters 9", '"Dune" fox!')
# What users leave around their words merges with the white space of a template.
SPACED_TEXTS = (" moth wing", "fern ", "\nhalo, ", "ivy;\n", "  dew!  ", "\n\nelm.\n\n")
SYSTEM_TEXT = "Basalt owls sing."
ANSWER_TEXTS = ("Cobalt wren", "umber 4.")
CALL_TEXT = "Juniper cove"
TOOL_TEXTS = ("Amber 31", '{"moss": 4}', "teal dusk.\n", "\nochre", "[slate]")
TOOLS = ("seekherbs", "wind")  # what a template writes around a result must not depend on the tool's name
CAPTIONED_MEDIA = 3  # enough to see how a template numbers its media ("Picture 1: ")
CAPTIONS = "add_vision_id"  # a variable that makes a template write such captions
THINKING = "enable_thinking"  # a variable that may make it write something after what the user says
ENDINGS = ("answer", "prompt", "open")

Parts = tuple[str, ...]  # known texts or names of media kinds
Message = tuple[str, Parts]  # role (system, user, assistant, call or tool) and parts


@dataclass(frozen=True)
class Conversation:
    """Messages and the template's options. `plain`: whether nothing but text is said and nothing is switched on."""

    messages: tuple[Message, ...]
    options: Mapping[str, bool] = field(default_factory=dict)
    plain: bool = False
    tool: str = TOOLS[0]


@dataclass(frozen=True)
class Shape:
    """How messages are handed to a template: contents as parts or as strings, arguments of a call as dict or JSON."""

    user_parts: bool
    other_parts: bool
    json_arguments: bool = False

    def shaped(self, conversation: Conversation, placeholders: Mapping[str, str]) -> list[dict[str, Any]]:
        """The messages as `apply_chat_template` takes them; in strings, media are their placeholders."""
        return [self._message(role, parts, conversation.tool, placeholders) for role, parts in conversation.messages]

    def _message(self, role: str, parts: Parts, tool: str, placeholders: Mapping[str, str]) -> dict[str, Any]:
        call_id = f"{tool:x<9}"  # some templates insist on nine letters or digits
        if role == "call":
            arguments = {"place": parts[0]}
            function = {"name": tool, "arguments": json.dumps(arguments) if self.json_arguments else arguments}
            calls = [{"id": call_id, "type": "function", "function": function}]
            return {"role": "assistant", "content": "", "tool_calls": calls}
        if role == "tool":
            return {"role": role, "content": parts[0], "name": tool, "tool_call_id": call_id}
        if not (self.user_parts if role == "user" else self.other_parts):
            return {"role": role, "content": "".join(placeholders.get(part, part) for part in parts)}
        return {
            "role": role,
            "content": [{"type": p} if p in placeholders else {"type": "text", "text": p} for p in parts],
        }


# In the order of preference: a template that takes parts says by itself how it writes media.
SHAPES = (
    Shape(True, True),
    Shape(True, False),
    Shape(False, False),
    Shape(True, True, True),
    Shape(False, False, True),
)


def conversations(kinds: Parts, template: str) -> Iterator[Conversation]:
    """Two-turn conversations: media first, text first and between texts, several kinds, with and without system
    message and generation prompt, with what `template` can be switched to, and with calls of tools where it has them.
    """
    first_text = count()
    for first, second in _layouts(kinds):
        plain = not {*first, *second} & set(kinds)
        switches = [{}, {CAPTIONS: True}] if CAPTIONS in template and not plain else [{}]
        switches += [{THINKING: True}, {THINKING: False}] if THINKING in template and plain else []
        for switch in switches:
            for system in (False, True):
                for ending in ENDINGS:
                    turns = tuple(_named((first, second), next(first_text)))
                    messages = _messages(turns, system, ending)
                    yield Conversation(
                        messages, {"add_generation_prompt": ending == "prompt", **switch}, plain and not switch
                    )
    for first, second in zip(SPACED_TEXTS, SPACED_TEXTS[1:] + SPACED_TEXTS[:1], strict=True):
        for ending in ENDINGS[:2]:
            yield Conversation(
                _messages(((first,), (second,)), False, ending), {"add_generation_prompt": ending == "prompt"}
            )
    if "tool" in template:
        yield from _tool_conversations()


def single_turns(kinds: Parts) -> Iterator[Conversation]:
    """Conversations of one user turn, for templates that take no second one."""
    for text in (*USER_TEXTS, *SPACED_TEXTS):
        for kind in kinds:
            for parts in ((kind, text), (kind, kind, text)):
                for ending in ENDINGS[:2]:
                    answer: tuple[Message, ...] = (("assistant", ANSWER_TEXTS[:1]),) if ending == "answer" else ()
                    options = {"add_generation_prompt": ending == "prompt"}
                    yield Conversation((("user", parts), *answer), options)


def _layouts(kinds: Parts) -> Iterator[tuple[Parts, Parts]]:
    """Parts of the first and of the second user turn."""
    yield from [(("text",), ("text",))] * len(USER_TEXTS)
    for kind in kinds:
        yield (kind, "text"), ("text", kind)
        yield ("text", kind, "text"), (kind, kind, "text")
        yield ("text", *[kind] * CAPTIONED_MEDIA), ("text",)
    for one, other in combinations(kinds, 2):
        yield (one, other, "text"), ("text", other, one)
        yield ("text",), (other, "text", one)


def _named(layouts: tuple[Parts, Parts], first_text: int) -> Iterator[Parts]:
    """The layouts with known texts in place of "text"."""
    texts = (USER_TEXTS[index % len(USER_TEXTS)] for index in count(first_text))
    for layout in layouts:
        yield tuple(next(texts) if part == "text" else part for part in layout)


def _messages(turns: tuple[Parts, ...], system: bool, ending: str) -> tuple[Message, ...]:
    messages: list[Message] = [("system", (SYSTEM_TEXT,))] if system else []
    messages += [("user", turns[0]), ("assistant", ANSWER_TEXTS[:1]), ("user", turns[1])]
    return (*messages, ("assistant", ANSWER_TEXTS[1:])) if ending == "answer" else tuple(messages)


def _tool_conversations() -> Iterator[Conversation]:
    """A call with one and with two results, answered or not, and a user turn after it."""
    for index, result in enumerate(TOOL_TEXTS):
        called: list[Message] = [("user", USER_TEXTS[:1]), ("call", (CALL_TEXT,)), ("tool", (result,))]
        another: list[Message] = [("tool", (TOOL_TEXTS[index - 1],))]
        more: list[Message] = [("assistant", ANSWER_TEXTS[:1]), ("user", USER_TEXTS[1:2])]
        for messages in (called, called + more, called + another, called + another + more):
            for prompt in (False, True):
                yield Conversation(tuple(messages), {"add_generation_prompt": prompt}, tool=TOOLS[index % len(TOOLS)])
