"""The questions of `spoken_digits`: what a scene shows and says, and what is asked about it.

Kinds of the group "known" need one step, and a language model can learn them from text. Those of the group "new"
need two: to find a place and read it, to compare, or to hold what is written against what is spoken.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

DIGITS_PER_SEQUENCE = 4
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GROUPS = ("known", "new")
MEDIA_OF = {"avt": ("written", "spoken"), "vt": ("written",), "st": ("spoken",)}
"""What each scenario has: audio-visual-text, visual-text, speech-text."""

_ORDINALS = ("first", "second", "third", "fourth")
_PLACES = range(DIGITS_PER_SEQUENCE)
Digits = tuple[int, ...]
Argument = Any  # a digit, a place or two counted from 0, "even" or "odd", or None


@dataclass(frozen=True)
class Question:
    """One question about a scene: {"written": digits, "spoken": digits}, asked of the sequence `own`."""

    digits: dict[str, Digits]
    kind: str
    own: str
    argument: Argument
    text: str
    answer: str


@dataclass(frozen=True)
class Kind:
    """One kind of question about a sequence `own`, of which `other` is the sequence in the other medium.

    `arguments(own, other)` are those that have one answer; where there are none, another scene is drawn. Phrasings
    may use {own} and {other} ("written"), {n} (the argument as a word), {nth} and {mth} (places as ordinals).
    """

    group: str
    arguments: Callable[[Digits, Digits], Sequence[Argument]]
    answer: Callable[[Digits, Digits, Argument], str]
    phrasings: tuple[str, ...]


def _word(number: int) -> str:
    return WORDS[number]


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _nothing(own: Digits, other: Digits) -> list[None]:
    return [None]


def _singles(own: Digits, other: Digits) -> list[int]:
    """The digits that occur exactly once."""
    return [digit for digit in own if own.count(digit) == 1]


def _single_largest(own: Digits, other: Digits) -> list[None]:
    return [None] if own.count(max(own)) == 1 else []


def _different_places(own: Digits, other: Digits) -> list[tuple[int, int]]:
    return [(n, m) for n in _PLACES for m in _PLACES if own[n] != own[m]]


def _equal_and_other_places(own: Digits, other: Digits) -> list[int]:
    """All places, if both sequences are equal at some of them and differ at others."""
    return list(_PLACES) if len({a == b for a, b in zip(own, other, strict=True)}) == 2 else []


KINDS_OF_ONE: dict[str, Kind] = {
    "place": Kind(
        "known",
        lambda own, _: _PLACES,
        lambda own, _, n: _word(own[n]),
        ("Which {own} digit is {nth}?", "What is the {nth} {own} digit?"),
    ),
    "largest": Kind(
        "known", _nothing, lambda own, _, n: _word(max(own)),
        ("Which {own} digit is the largest?", "What is the largest {own} digit?"),
    ),
    "smallest": Kind(
        "known", _nothing, lambda own, _, n: _word(min(own)),
        ("Which {own} digit is the smallest?", "What is the smallest {own} digit?"),
    ),
    "parity_count": Kind(
        "known",
        lambda own, _: ("even", "odd"),
        lambda own, _, n: _word(sum(digit % 2 == (n == "odd") for digit in own)),
        ("How many {own} digits are {n}?", "Count the {own} digits that are {n}."),
    ),
    "presence": Kind(
        "known",
        lambda own, _: range(10),
        lambda own, _, n: _yes(n in own),
        ("Is there a {n} among the {own} digits?", "Is one of the {own} digits a {n}?"),
    ),
    "after": Kind(
        "new",
        lambda own, other: [digit for digit in _singles(own, other) if digit != own[-1]],
        lambda own, _, n: _word(own[own.index(n) + 1]),
        ("Which {own} digit comes right after the {n}?", "What follows the {own} {n}?"),
    ),
    "place_of_digit": Kind(
        "new", _singles, lambda own, _, n: _word(own.index(n) + 1),
        ("At which place is the {own} {n}?", "What is the place of the {own} {n}?"),
    ),
    "place_of_largest": Kind(
        "new", _single_largest, lambda own, _, n: _word(own.index(max(own)) + 1),
        ("At which place is the largest {own} digit?", "What is the place of the largest {own} digit?"),
    ),
    "larger_count": Kind(
        "new",
        lambda own, _: range(10),
        lambda own, _, n: _word(sum(digit > n for digit in own)),
        ("How many {own} digits are larger than {n}?", "Count the {own} digits larger than {n}."),
    ),
    "comparison": Kind(
        "new",
        _different_places,
        lambda own, _, n: _yes(own[n[0]] > own[n[1]]),
        ("Is the {nth} {own} digit larger than the {mth}?",),
    ),
}  # fmt: skip
"""Questions about one sequence."""

KINDS_OF_BOTH: dict[str, Kind] = {
    "common": Kind(
        "new",
        lambda own, other: [None] if len(set(own) & set(other)) == 1 else [],
        lambda own, other, n: _word((set(own) & set(other)).pop()),
        ("Which digit is both written and spoken?", "Which spoken digit is written, too?"),
    ),
    "at_place_of_digit": Kind(
        "new", _singles, lambda own, other, n: _word(other[own.index(n)]),
        ("Which {other} digit is at the place of the {own} {n}?", "Which digit is {other} where the {n} is {own}?"),
    ),
    "at_place_of_largest": Kind(
        "new", _single_largest, lambda own, other, n: _word(other[own.index(max(own))]),
        ("Which {other} digit is at the place of the largest {own} digit?",),
    ),
    "equal": Kind(
        "new",
        _equal_and_other_places,
        lambda own, other, n: _yes(own[n] == other[n]),
        ("Is the {nth} written digit equal to the {nth} spoken digit?", "Is the same digit {nth} in both?"),
    ),
}  # fmt: skip
"""Questions that nobody can answer from one sequence alone."""

KINDS = KINDS_OF_ONE | KINDS_OF_BOTH


def kinds_of(scenario: str, group: str) -> tuple[str, ...]:
    """The kinds of a group that a scenario asks; with two media the new questions are about both."""
    kinds = KINDS_OF_BOTH if scenario == "avt" and group == "new" else KINDS_OF_ONE
    return tuple(name for name, kind in kinds.items() if kind.group == group)


def draw_digits(scenario: str, rng: np.random.Generator) -> dict[str, Digits]:
    """A scene: four digits, each of any value, in every medium of the scenario."""
    return {medium: tuple(rng.integers(10, size=DIGITS_PER_SEQUENCE).tolist()) for medium in MEDIA_OF[scenario]}


def draw_question(scenario: str, group: str, rng: np.random.Generator) -> Question:
    """A question of one of the group's kinds, about a scene made for it.

    Of the answers that the scene allows one is drawn first, then an argument with that answer: so "yes" and "no"
    are equally frequent, and counts are spread.
    """
    names, media = kinds_of(scenario, group), MEDIA_OF[scenario]
    name, turn = names[rng.integers(len(names))], int(rng.integers(len(media)))
    kind, own, other = KINDS[name], media[turn], media[turn - 1]
    digits = draw_digits(scenario, rng)
    while not (arguments := list(kind.arguments(digits[own], digits[other]))):
        digits = draw_digits(scenario, rng)
    answers = [kind.answer(digits[own], digits[other], argument) for argument in arguments]
    possible = sorted(set(answers))
    answer = possible[rng.integers(len(possible))]
    fitting = [argument for argument, given in zip(arguments, answers, strict=True) if given == answer]
    argument = fitting[rng.integers(len(fitting))]
    phrasing = kind.phrasings[rng.integers(len(kind.phrasings))]
    text = phrasing.format(own=own, other=other, **_words_of(argument))
    return Question(digits, name, own, argument, text, answer)


def _words_of(argument: Argument) -> dict[str, str]:
    """An argument in the words that phrasings use."""
    if isinstance(argument, int):
        nth = _ORDINALS[argument] if argument in _PLACES else ""
        return {"n": WORDS[argument], "nth": nth}
    if isinstance(argument, tuple):
        return {"nth": _ORDINALS[argument[0]], "mth": _ORDINALS[argument[1]]}
    return {"n": str(argument)}
