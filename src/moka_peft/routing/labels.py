"""What every token of a rendered conversation is."""

from __future__ import annotations

from collections.abc import Callable, Container

from .delimiters import Delimiters, find_tool_turn
from .rendering import Rendering, Said

Write = Callable[[str, int, int], int]  # writes a name over a stretch of characters and returns its end
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
        elif labels[index][0] == "user" and token in special:  # it swallows white space that the user wrote
            written = [label for label in characters[slice(*rendering.offsets[index])] if label[0] != "user"]
            labels[index] = _token_label(written, 0, len(written))
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
    cursor = number = 0
    for said in rendering.said:
        labels[said.start : said.end] = [("said", 0)] * (said.end - said.start)
    for group in _groups(rendering, delimiters):
        if group[0].role == "tool" and find_tool_turn(rendering, delimiters, group) is None:
            continue
        number += 1  # a result of a tool inside a user turn counts as a turn, with no instruction
        cursor = _label_turn(rendering, delimiters, group, number, cursor, labels)
    return labels


def _groups(rendering: Rendering, delimiters: Delimiters) -> list[list[Said]]:
    """What each user says in one turn, and results of tools that no delimiter parts."""
    groups: list[list[Said]] = []
    for said in (said for said in rendering.said if said.role in ("user", "tool")):
        last = groups[-1][-1] if groups else None
        if last is not None and (last.role, last.turn) == (said.role, said.turn):
            between = rendering.text[last.end : said.start]
            if said.role == "user" or (delimiters.close not in between and delimiters.open not in between):
                groups[-1].append(said)
                continue
        groups.append([said])
    return groups


def _label_turn(
    rendering: Rendering, delimiters: Delimiters, group: list[Said], turn: int, cursor: int, labels: list[Label]
) -> int:
    """Writes the labels of one user turn that begins after `cursor`, and returns where it ends."""
    text = rendering.text

    def write(name: str, start: int, end: int) -> int:
        labels[start:end] = [(name, turn)] * (end - start)
        return end

    start = text.rfind(delimiters.open, cursor, group[0].start)
    if start < 0:
        raise ValueError(f"user turn {turn} does not begin with {delimiters.open!r} in {text!r}")
    limit = min((s.start for s in rendering.said if s.start >= group[-1].end), default=len(text))
    end = text.find(delimiters.close, group[-1].end, limit)
    opened = write("open", start, start + len(delimiters.open))
    first = min(said.start for said in rendering.said if said.start >= opened)  # white space of its own is no delimiter
    content = write("open_space", opened, min(_skip_space(text, opened), first))
    closing = max(len(text[:end].rstrip()), group[-1].end) if end >= 0 else limit
    write("extra", content, closing)
    for said in (s for s in rendering.said if content <= s.start < closing):
        if said.role == "user":
            write("user", said.start, said.end)
        elif said.role == "tool":
            _write_block(text, delimiters.tool, content, said, write)
        elif said.role == "system":
            _write_block(text, delimiters.system, content, said, write)
    if end < 0:
        return limit
    return write("close", write("close_space", closing, end), end + len(delimiters.close))


def _write_block(text: str, marks: tuple[str, str] | None, content: int, said: Said, write: Write) -> None:
    if marks is None:
        write("free", content, _skip_space(text, said.end))
        return
    before, after = marks
    opens, closes = text.rindex(before, content, said.start), text.index(after, said.end)
    write("block", write("block_open", opens, opens + len(before)), closes)
    closed = write("block_close", closes, closes + len(after))
    write("block_space", closed, _skip_space(text, closed))


def _skip_space(text: str, start: int) -> int:
    return len(text) - len(text[start:].lstrip())
