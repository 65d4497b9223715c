"""A RoutingSpec from rendered conversations, and the check of a spec against them."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence

import torch

from .delimiters import Delimiters
from .labels import Label, label_tokens
from .rendering import Rendering
from .routing import PADDING, TEXT
from .scan import route
from .spec import RoutingSpec, SkipItem

BESIDE = ("media", "marker")  # tokens that hold a caption next to them
EXPANSION = 3  # a processor repeats a placeholder; the spec must not depend on how often
NUMBER_TOKENS = 8  # of a number in a caption, such as 1234.5
SHOWN_TOKENS = 6  # on each side of a difference

Sequence_ = tuple[int, ...]
Expected = tuple[int, int] | None  # modality and turn of a token; None where either reading is right


def derive_spec(
    renderings: Sequence[Rendering],
    delimiters: Delimiters,
    placeholders: Mapping[str, Sequence_],
    special: Container[int],
    enclosure: SkipItem | None = None,
) -> RoutingSpec:
    """Collects every tokenisation of the delimiters, and what the template adds to a user turn as `skip`.

    `special`: ids of the tokenizer's special tokens; `enclosure`: a pair that encloses no instruction.
    Raises ValueError on a caption that begins or ends with a number, outside `enclosure`: users write numbers too.
    """
    opens: set[Sequence_] = set()
    closes: set[Sequence_] = set()
    skip: dict[SkipItem, None] = {} if enclosure is None else {enclosure: None}
    for rendering in renderings:
        labels = label_tokens(rendering, delimiters, _flat(placeholders), special)
        opens |= _sequences(rendering, labels, "open") | _sequences(rendering, labels, "open", "open_space")
        closes |= _sequences(rendering, labels, "close") | _sequences(rendering, labels, "close_space", "close")
        skip |= dict.fromkeys(_blocks(rendering, labels))
        skip |= dict.fromkeys(token for token, label in _pairs(rendering, labels) if label[0] == "marker")
        captions = [run for run in _captions(rendering, labels) if not _is_enclosed(rendering.ids, run, enclosure)]
        skip |= dict.fromkeys(_anchored(rendering, labels, run) for run in captions)
    return RoutingSpec(
        placeholders=placeholders,
        user_open=tuple(s for s in opens if not any(o != s and s[-len(o) :] == o for o in opens)),
        user_close=tuple(s for s in closes if not any(o != s and s[: len(o)] == o for o in closes)),
        skip=tuple(skip),
    )


def check_spec(
    spec: RoutingSpec, renderings: Sequence[Rendering], delimiters: Delimiters, special: Container[int]
) -> None:
    """Compares `route` with every rendering, as rendered and with its placeholders repeated.

    Raises ValueError that shows the first token read otherwise than it was rendered.
    """
    for times in (1, EXPANSION):
        rows = [_expected(rendering, delimiters, spec, special, times) for rendering in renderings]
        ids, mask = _padded([[token for token, _, _ in row] for row in rows])
        found = route(ids, spec, mask)
        for row, modality, turn in zip(rows, found.modality.tolist(), found.turn.tolist(), strict=True):
            for index, (_, expected, _) in enumerate(row):
                if expected is not None and expected != (modality[index], turn[index]):
                    got = (modality[index], turn[index])
                    raise ValueError(_difference(row, index, expected, got, spec.modalities))


def _flat(placeholders: Mapping[str, Sequence_]) -> frozenset[int]:
    return frozenset(token for ids in placeholders.values() for token in ids)


def _pairs(rendering: Rendering, labels: Sequence[Label]) -> Iterator[tuple[int, Label]]:
    return zip(rendering.ids, labels, strict=True)


def _runs(labels: Sequence[Label], *names: str) -> Iterator[range]:
    """Stretches of tokens with these names, as long as possible."""
    start = None
    for index, (name, _) in enumerate([*labels, ("", 0)]):
        if name in names and start is None:
            start = index
        elif name not in names and start is not None:
            yield range(start, index)
            start = None


def _sequences(rendering: Rendering, labels: Sequence[Label], *names: str) -> set[Sequence_]:
    return {rendering.ids[run.start : run.stop] for run in _runs(labels, *names)}


def _blocks(rendering: Rendering, labels: Sequence[Label]) -> Iterator[SkipItem]:
    """Pairs that enclose a system block inside the user turn, with and without the white space after it."""
    for before in _sequences(rendering, labels, "block_open"):
        for names in (("block_close",), ("block_close", "block_space")):
            yield from ((before, after) for after in _sequences(rendering, labels, *names))


def _captions(rendering: Rendering, labels: Sequence[Label]) -> Iterator[range]:
    """Plain text that the template adds inside a turn; white space counts only beside media.

    White space after media and the words before the next media come separately: they occur without each other.
    """
    for run in _runs(labels, "extra"):
        words = next((i for i in run if rendering.text[slice(*rendering.offsets[i])].strip()), None)
        parts = [run] if words is None else [range(run.start, words), range(words, run.stop)]
        for part in (part for part in parts if part):
            beside = {labels[i][0] for i in (part.start - 1, part.stop) if 0 <= i < len(labels)}
            if part.start == words or beside & set(BESIDE):
                yield part


def _anchored(rendering: Rendering, labels: Sequence[Label], run: range) -> SkipItem:
    """The caption with the media or marker token after it, else before it: users write captions too.

    One with a number in it becomes the pair around the number.
    """
    is_followed = run.stop < len(labels) and labels[run.stop][0] in BESIDE
    is_led = not is_followed and run.start > 0 and labels[run.start - 1][0] in BESIDE
    held = range(run.start - is_led, run.stop + is_followed)
    numbers = [i for i in run if re.search(r"\d", rendering.text[slice(*rendering.offsets[i])])]
    if len(held) == len(run) or not numbers:
        return rendering.ids[held.start : held.stop]
    before, after = rendering.ids[held.start : numbers[0]], rendering.ids[numbers[-1] + 1 : held.stop]
    if not before or not after:
        text = rendering.text[rendering.offsets[held.start][0] : rendering.offsets[held.stop - 1][1]]
        raise ValueError(f"the number in {text!r} around media cannot be told from a number that a user writes")
    return before, after, len(before) + NUMBER_TOKENS + len(after)


def _is_enclosed(ids: Sequence_, run: range, enclosure: SkipItem | None) -> bool:
    if not isinstance(enclosure, tuple):
        return False
    before = [token for token in ids[: run.start] if (token,) in enclosure]
    return bool(before) and (before[-1],) == enclosure[0]


def _expected(
    rendering: Rendering, delimiters: Delimiters, spec: RoutingSpec, special: Container[int], times: int
) -> list[tuple[int, Expected, str]]:
    """Every token's id, what it was rendered as, and its text; media `times` times."""
    labels = label_tokens(rendering, delimiters, _flat(spec.placeholders), special)
    captions = {index for run in _captions(rendering, labels) for index in run}
    modality = {token: k for k, ids in enumerate(spec.placeholders.values(), start=1) for token in ids}
    row = []
    for index, (token, (name, turn)) in enumerate(_pairs(rendering, labels)):
        start, end = rendering.offsets[index]
        expected: Expected = (modality.get(token, TEXT), turn if name in ("user", "media") else 0)
        is_blank = name == "user" and not rendering.text[start:end].strip()  # may be a template's white space as well
        if name == "free" or is_blank or (name == "extra" and index not in captions):
            expected = None
        row += [(token, expected, rendering.text[start:end])] * (times if name == "media" else 1)
    return row


def _padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    length = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return ids, mask


def _difference(
    row: list[tuple[int, Expected, str]],
    index: int,
    expected: tuple[int, int],
    got: tuple[int, int],
    modalities: tuple[str, ...],
) -> str:
    def shown(tokens: list[tuple[int, Expected, str]]) -> str:
        return "".join(text for _, _, text in tokens)

    def name(reading: tuple[int, int]) -> str:
        modality, turn = reading
        if modality == PADDING:
            return "padding"
        if turn == 0:
            return f"{modalities[modality]} of no turn"
        return f"{'instruction' if modality == TEXT else modalities[modality]} of turn {turn}"

    before, after = shown(row[max(index - SHOWN_TOKENS, 0) : index]), shown(row[index + 1 : index + 1 + SHOWN_TOKENS])
    return (
        f"token {row[index][0]} in {before!r} [{row[index][2]!r}] {after!r}: "
        f"rendered as {name(expected)}, read as {name(got)}"
    )
