"""A routing as stretches of tokens that read alike: what the drawings show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from .facts import attending
from .routing import PADDING, TEXT, Routing


@dataclass(frozen=True)
class Span:
    """Neighbouring tokens of one row with the same modality and turn: columns `start` to `stop` (excluded)."""

    modality: int
    turn: int
    start: int
    stop: int

    @property
    def is_media(self) -> bool:
        """Tokens of any modality other than text."""
        return self.modality > TEXT

    @property
    def is_instruction(self) -> bool:
        """Text that media of the same turn attend to."""
        return self.modality == TEXT and self.turn > 0

    def text(self, tokens: Sequence[str]) -> str:
        """What the span says."""
        return "".join(tokens[self.start : self.stop])


def spans_of(routing: Routing, row: int = 0) -> list[Span]:
    """The spans of one row in order, padding left out."""
    readings = list(zip(routing.modality[row].tolist(), routing.turn[row].tolist(), strict=True))
    spans, start = [], 0
    for (modality, turn), group in groupby(readings):
        stop = start + len(list(group))
        if modality != PADDING:
            spans.append(Span(modality, turn, start, stop))
        start = stop
    return spans


def keys_of(span: Span, spans: Sequence[Span], tokens: Sequence[str]) -> str:
    """The instruction that a media span attends to, as text; empty where there is none."""
    said = [other.text(tokens).strip() for other in spans if other.is_instruction and other.turn == span.turn]
    return " ".join(said) if span.turn > 0 else ""


def count_media(routing: Routing) -> tuple[int, int]:
    """How many media tokens attend to at least one instruction token, and how many there are."""
    return int(attending(routing)[0].sum()), int((routing.on_host()[0] > TEXT).sum())


def modality_names(routing: Routing) -> tuple[str, ...]:
    """The routing's `modalities`, or made-up names where it has none."""
    highest = max(int(routing.modality.max()), TEXT) if routing.modality.numel() else TEXT
    return routing.modalities or ("text", *(f"media {index}" for index in range(1, highest + 1)))


def sketch_row(routing: Routing, row: int = 0) -> str:
    """One row in few words, for messages: "text x2, visual of turn 1 x6, instruction of turn 1 x4"."""
    names, words = modality_names(routing), []
    for span in spans_of(routing, row):
        name = "instruction" if span.is_instruction else names[span.modality]
        words.append(f"{name}{f' of turn {span.turn}' if span.turn else ''} x{span.stop - span.start}")
    return ", ".join(words)
