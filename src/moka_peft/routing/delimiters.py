"""The text around user turns, and around what a template writes into them, found in rendered conversations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from .rendering import Rendering, Said


@dataclass(frozen=True)
class Delimiters:
    """Text that opens and closes a user turn, without white space around it.

    `system`, `tool`: what stands around a system message, or the result of a tool, that the template writes into a
    user turn; None where it has no such marks or writes it elsewhere.
    """

    open: str
    close: str
    system: tuple[str, str] | None = None
    tool: tuple[str, str] | None = None


def find_delimiters(renderings: Sequence[Rendering], special: Iterable[str], ends: Sequence[str]) -> Delimiters:
    """Longest common text before and after what users say. `special`: texts of tokens that are never cut through;
    `ends`: texts of the begin and end tokens, which are no part of an opening.

    Raises ValueError where there is none, or where nothing marks the result of a tool inside a user turn: the reason,
    to be completed by the caller.
    """
    plain = [rendering for rendering in renderings if rendering.plain]
    written = "\n".join(rendering.text for rendering in plain)
    tokens = [text for text in special if text in written]
    pieces = pieces_of(tokens)
    opening = _find_open(plain, pieces, ends)
    following = [_after_user(rendering, turn) for rendering in plain for turn in (1, 2)]
    closing = common_text((text for text in following if text.strip()), pieces).strip()
    if not opening or not closing:
        raise ValueError(f"no common text marks where a user turn {'ends' if opening else 'begins'}")
    found = Delimiters(opening, closing, _find_block(plain, opening))
    for rendering in plain:
        _check_apart(rendering, found, tokens)
    return replace(found, tool=_find_tool(renderings, found))


def _find_open(plain: Sequence[Rendering], pieces: re.Pattern, ends: Sequence[str]) -> str:
    between = [_between_turns(r) for r in plain if not r.of("system")] or [_between_turns(r) for r in plain]
    opening = common_text(between, pieces, from_end=True)
    answered = [r.text[r.of("assistant", 2)[0].end :] for r in plain if r.of("assistant", 2)]
    for prefix in (common_text(answered, pieces), *ends, *ends):  # twice: an end and a begin token in any order
        opening = opening.strip().removeprefix(prefix.strip() or " ") or opening
    opening = opening.strip()
    first = [r.text[: r.of("user", 1)[0].start] for r in plain if not r.of("system")]
    if all(opening in text for text in first):
        return opening
    return common_text([opening, *(text.rstrip() for text in first)], pieces, from_end=True).strip()


def _between_turns(rendering: Rendering) -> str:
    return rendering.text[rendering.of("assistant", 1)[-1].end : rendering.of("user", 2)[0].start]


def _after_user(rendering: Rendering, turn: int) -> str:
    """What follows the user's text, up to the answer or the end."""
    last = rendering.of("user", turn)[-1].end
    following = [said.start for said in rendering.said if said.start >= last]
    return rendering.text[last : min(following, default=len(rendering.text))]


def pieces_of(tokens: Sequence[str]) -> re.Pattern:
    """Matches `tokens`, longest first, words, and single other characters."""
    return re.compile("|".join([*map(re.escape, sorted(tokens, key=len, reverse=True)), r"\w+|\s|."]), re.DOTALL)


def common_text(texts: Iterable[str], pieces: re.Pattern, *, from_end: bool = False) -> str:
    """Longest common prefix (suffix) of whole words and special tokens."""
    split = [pieces.findall(text) for text in texts]
    split = [parts[::-1] for parts in split] if from_end else split
    shared = [column[0] for column in takewhile(lambda c: len(set(c)) == 1, zip(*split, strict=False))]
    return "".join(shared[::-1] if from_end else shared)


def _find_block(plain: Sequence[Rendering], opening: str) -> tuple[str, str] | None:
    for rendering in plain:
        for system in rendering.of("system"):
            user = next(said for said in rendering.of("user") if said.start > system.start)
            start = rendering.text.rfind(opening, 0, user.start) + len(opening)
            if start <= system.start:
                before = rendering.text[start : system.start].strip()
                after = rendering.text[system.end : user.start].strip()
                return (before, after) if before and after else None
    return None


def _check_apart(rendering: Rendering, delimiters: Delimiters, tokens: Sequence[str]) -> None:
    """Raises ValueError where a delimiter of plain text touches what users say: every word would merge with it in its
    own way."""
    for said in rendering.of("user"):
        touches_open = rendering.text.endswith(delimiters.open, 0, said.start)
        touches_close = rendering.text.startswith(delimiters.close, said.end)
        for touches, name, plain in (
            (touches_open, delimiters.open, not delimiters.open.endswith(tuple(tokens))),
            (touches_close, delimiters.close, not delimiters.close.startswith(tuple(tokens))),
        ):
            if touches and plain:
                raise ValueError(f"nothing parts {name!r} from what users say, and it is no special token")


def _find_tool(renderings: Sequence[Rendering], delimiters: Delimiters) -> tuple[str, str] | None:
    """What stands around a single result inside a user turn; the same whatever the tool and its result."""
    found: set[tuple[str, str]] = set()
    for rendering in renderings:
        text, tools = rendering.text, rendering.of("tool")
        start = find_tool_turn(rendering, delimiters, tools[:1]) if len(tools) == 1 else None
        if start is not None:
            end = text.find(delimiters.close, tools[0].end)
            after = text[tools[0].end : end if end >= 0 else len(text)]
            found.add((text[start + len(delimiters.open) : tools[0].start].strip(), after.strip()))
    if len(found) > 1 or any(not before or not after for before, after in found):
        raise ValueError(f"it writes results of tools into a user turn, with no fixed text around: {sorted(found)}")
    return next(iter(found), None)


def find_tool_turn(rendering: Rendering, delimiters: Delimiters, results: Sequence[Said]) -> int | None:
    """Where the user turn opens into which the template writes these results; None where it writes them elsewhere."""
    before = max((said.end for said in rendering.said if said.start < results[0].start), default=0)
    start = rendering.text.rfind(delimiters.open, before, results[0].start)
    is_closed = delimiters.close in rendering.text[start + len(delimiters.open) : results[0].start]
    return None if start < 0 or is_closed else start
