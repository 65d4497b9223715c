"""The spec of a template that takes one turn and opens it with no words: a prompt, and where its answer starts."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import torch

from .delimiters import common_text, pieces_of
from .rendering import Rendering
from .scan import route
from .spec import RoutingSpec


def derive_single_turn(
    renderings: Sequence[Rendering], placeholders: Mapping[str, tuple[int, ...]], whole: Sequence[str]
) -> RoutingSpec:
    """`placeholders`, and as `answer_start` every tokenisation of what follows the user's text; without it where
    nothing follows. `whole`: texts of tokens that are never cut through.

    Raises ValueError where the template writes words before the user's, joins its own to them, or a rendered span
    differs from what the spec finds: the reason, to be completed by the caller.
    """
    if not renderings:
        raise ValueError("it leaves out or rewrites what the user says")
    pieces = pieces_of(whole)
    for rendering in renderings:
        words = [piece for piece in pieces.findall(_before(rendering)) if piece.strip() and piece not in whole]
        if words:
            raise ValueError(f"it has a single turn, with words of its own before the user's: {''.join(words)!r}")
    start = common_text([_after(rendering) for rendering in renderings], pieces)
    if start.strip() and not start[0].isspace() and not start.startswith(tuple(whole)):
        raise ValueError(f"nothing parts {start!r} from what users say, and it is no special token")
    media = {token for ids in placeholders.values() for token in ids}
    if not any(media & set(rendering.ids) for rendering in renderings):
        raise ValueError("it writes nothing for media")
    skip = {token for rendering in renderings for token in _marks_before(rendering, whole)} - media
    starts = {sequence for rendering in renderings for sequence in _start_sequences(rendering, start)}
    spec = RoutingSpec(placeholders, skip=tuple(sorted(skip)), answer_start=tuple(starts))
    for rendering in renderings:
        _check(rendering, spec, media)
    return spec


def _before(rendering: Rendering) -> str:
    return rendering.text[: rendering.of("user")[0].start]


def _after(rendering: Rendering) -> str:
    answers = rendering.of("assistant")
    return rendering.text[rendering.of("user")[-1].end : answers[0].start if answers else None]


def _marks_before(rendering: Rendering, whole: Sequence[str]) -> list[int]:
    """Tokens of their own before what the user says, such as the one that begins a row."""
    end, spans = len(_before(rendering)), zip(rendering.ids, rendering.offsets, strict=True)
    return [token for token, span in spans if span[1] <= end and rendering.text[slice(*span)].strip() in whole]


def _start_sequences(rendering: Rendering, start: str) -> list[tuple[int, ...]]:
    """The tokens of `start` with and without the white space that it begins with."""
    said = rendering.of("user")[-1].end
    end = said + len(start.rstrip() or start)
    found = []
    for begin in {said, said + len(start) - len(start.lstrip())} if start.strip() else {said}:
        columns = [i for i, span in enumerate(rendering.offsets) if begin <= span[0] < end]
        found.append(tuple(rendering.ids[i] for i in columns))
    return [sequence for sequence in found if sequence]


def _check(rendering: Rendering, spec: RoutingSpec, media: Container[int]) -> None:
    users, last = rendering.of("user"), max((i for i, t in enumerate(rendering.ids) if t in media), default=-1)
    found = route(torch.tensor([rendering.ids]), spec, prompt_length=_prompt_length(rendering)).turn[0].tolist()
    for index, (token, (begin, end)) in enumerate(zip(rendering.ids, rendering.offsets, strict=True)):
        is_said = index > last and any(begin < said.end and end > said.start for said in users)
        if found[index] != int(token in media or is_said) and rendering.text[begin:end].strip():
            text = rendering.text
            raise ValueError(f"{text[begin:end]!r} after {text[:begin]!r} is read as of turn {found[index]}")


def _prompt_length(rendering: Rendering) -> int:
    """Columns before the answer, as `generate` knows them."""
    answers = rendering.of("assistant")
    ends = [i for i, span in enumerate(rendering.offsets) if answers and span[1] > answers[0].start]
    return min(ends, default=len(rendering.ids))
