"""The text around user turns, found in rendered conversations, and what every token of a rendering is."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from .rendering import Rendering

Label = tuple[str, int]  # what a character or token is, and the user turn that holds it (0: none)

# A token that covers characters of several kinds is the first of these.
PRECEDENCE = (
    "user",
    "said",
    "block_open",
    "block_close",
    "open",
    "close",
    "block",
    "extra",
    "free",
    "block_space",
    "open_space",
    "close_space",
    "outside",
)
OUTSIDE: Label = ("outside", 0)


@dataclass(frozen=True)
class Delimiters:
    """Text that opens and closes a user turn, without white space around it.

    `block`: what stands around a system message that the template writes into the user turn; None where it has no
    such marks or writes it elsewhere.
    """

    open: str
    close: str
    block: tuple[str, str] | None = None


def find_delimiters(renderings: Sequence[Rendering], special: Iterable[str], ends: Sequence[str]) -> Delimiters:
    """Longest common text before and after what users say. `special`: texts of special tokens, never cut through;
    `ends`: texts of the begin and end tokens, which are no part of an opening.

    Raises ValueError where there is none: the reason, to be completed by the caller.
    """
    plain = [rendering for rendering in renderings if not rendering.has_media]
    written = "\n".join(rendering.text for rendering in plain)
    tokens = sorted((text for text in special if text in written), key=len, reverse=True)
    pieces = re.compile("|".join([*map(re.escape, tokens), r"\w+|\s|."]), re.DOTALL)
    opening = _find_open(plain, pieces, ends)
    following = [_after_user(rendering, turn) for rendering in plain for turn in (1, 2)]
    closing = _common((text for text in following if text.strip()), pieces).strip()
    if not opening or not closing:
        raise ValueError(f"no common text marks where a user turn {'ends' if opening else 'begins'}")
    return Delimiters(opening, closing, _find_block(plain, opening))


def _find_open(plain: Sequence[Rendering], pieces: re.Pattern, ends: Sequence[str]) -> str:
    between = [_between_turns(r) for r in plain if not r.of("system")] or [_between_turns(r) for r in plain]
    opening = _common(between, pieces, from_end=True)
    answered = [r.text[r.of("assistant", 2)[0].end :] for r in plain if r.of("assistant", 2)]
    for prefix in (_common(answered, pieces), *ends, *ends):  # twice: an end and a begin token in any order
        opening = opening.strip().removeprefix(prefix.strip() or " ") or opening
    opening = opening.strip()
    first = [r.text[: r.of("user", 1)[0].start] for r in plain if not r.of("system")]
    if all(opening in text for text in first):
        return opening
    return _common([opening, *(text.rstrip() for text in first)], pieces, from_end=True).strip()


def _between_turns(rendering: Rendering) -> str:
    return rendering.text[rendering.of("assistant", 1)[-1].end : rendering.of("user", 2)[0].start]


def _after_user(rendering: Rendering, turn: int) -> str:
    """What follows the user's text, up to the answer or the end."""
    last = rendering.of("user", turn)[-1].end
    following = [said.start for said in rendering.said if said.start >= last]
    return rendering.text[last : min(following, default=len(rendering.text))]


def _common(texts: Iterable[str], pieces: re.Pattern, *, from_end: bool = False) -> str:
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


def label_tokens(
    rendering: Rendering, delimiters: Delimiters, placeholders: Container[int], special: Container[int]
) -> list[Label]:
    """What every token is, from the characters it covers: ("user", turn) where it covers text that the user said,
    ("media", turn) for `placeholders`, ("marker", turn) for other `special` tokens that the template adds around
    media, else a name of PRECEDENCE.

    Raises ValueError where a turn has no opening: the reason, to be completed by the caller.
    """
    characters = _label_characters(rendering, delimiters)
    labels = [_token_label(characters, start, end) for start, end in rendering.offsets]
    for index, token in enumerate(rendering.ids):
        if token in placeholders:
            labels[index] = ("media", labels[index][1])
        elif labels[index][0] == "extra" and token in special:
            labels[index] = ("marker", labels[index][1])
    return labels


def _token_label(characters: list[Label], start: int, end: int) -> Label:
    if start == end:  # white space trimmed off by the tokenizer: it belongs to what stands before it
        before = characters[start - 1] if start else OUTSIDE
        return OUTSIDE if before[0] == "user" and before not in characters[start : start + 1] else before
    return min(characters[start:end], key=lambda label: PRECEDENCE.index(label[0]))


def _label_characters(rendering: Rendering, delimiters: Delimiters) -> list[Label]:
    labels = [OUTSIDE] * len(rendering.text)
    cursor = 0
    for said in rendering.said:
        labels[said.start : said.end] = [("said", 0)] * (said.end - said.start)
    for turn in (1, 2):
        cursor = _label_turn(rendering, delimiters, turn, cursor, labels)
    return labels


def _label_turn(rendering: Rendering, delimiters: Delimiters, turn: int, cursor: int, labels: list[Label]) -> int:
    """Writes the labels of one user turn that begins after `cursor`, and returns where it ends."""
    text, users = rendering.text, rendering.of("user", turn)

    def write(name: str, start: int, end: int) -> int:
        labels[start:end] = [(name, turn)] * (end - start)
        return end

    start = text.rfind(delimiters.open, cursor, users[0].start)
    if start < 0:
        raise ValueError(f"user turn {turn} does not begin with {delimiters.open!r} in {text!r}")
    limit = min((s.start for s in rendering.said if s.start >= users[-1].end), default=len(text))
    end = text.find(delimiters.close, users[-1].end, limit)
    opened = write("open", start, start + len(delimiters.open))
    content = write("open_space", opened, _skip_space(text, opened))
    closing = len(text[:end].rstrip()) if end >= 0 else limit
    write("extra", content, closing)
    for system in (s for s in rendering.of("system") if content <= s.start < closing):
        _write_block(text, delimiters, content, system.start, system.end, write)
    for said in users:
        write("user", said.start, said.end)
    if end < 0:
        return limit
    return write("close", write("close_space", closing, end), end + len(delimiters.close))


def _write_block(text: str, delimiters: Delimiters, content: int, start: int, end: int, write) -> None:
    if delimiters.block is None:
        write("free", content, _skip_space(text, end))
        return
    before, after = delimiters.block
    opens, closes = text.rindex(before, content, start), text.index(after, end)
    write("block", write("block_open", opens, opens + len(before)), closes)
    closed = write("block_close", closes, closes + len(after))
    write("block_space", closed, _skip_space(text, closed))


def _skip_space(text: str, start: int) -> int:
    return len(text) - len(text[start:].lstrip())
