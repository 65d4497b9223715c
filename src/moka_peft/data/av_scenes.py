"""Draws the scenes of `av_digits`: what a sample shows and plays, and the argument that its question asks about.

Each public function serves the kinds of question that need such a scene; a position counts from 1.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from moka_peft.data.digit_strips import DIGITS_PER_STRIP
from moka_peft.data.notes import MAX_NOTES, TIMBRES

T = TypeVar("T")
Argument = Any  # a position, a digit, a timbre, or None


@dataclass(frozen=True)
class Scene:
    """What one sample shows and plays: four digits, and the timbres of one to four notes, in order.

    At least one digit and one timbre of a drawn scene occur exactly once.
    """

    digits: tuple[int, ...]
    notes: tuple[str, ...]


def _draw_scene(rng: np.random.Generator, digit_below: int = DIGITS_PER_STRIP, least_notes: int = 1) -> Scene:
    """A scene whose single digit stands at a position < `digit_below`, with at least `least_notes` notes."""
    notes = int(rng.integers(least_notes, MAX_NOTES + 1))
    values = [int(value) for value in rng.permutation(10)[:4]]
    timbres = [TIMBRES[i] for i in rng.permutation(len(TIMBRES))]
    return Scene(
        _with_single(values, DIGITS_PER_STRIP, int(rng.integers(digit_below)), rng),
        _with_single(timbres, notes, int(rng.integers(notes)), rng),
    )


def _with_single(values: list[T], length: int, position: int, rng: np.random.Generator) -> tuple[T, ...]:
    """`values[0]` at `position` and nowhere else; the other values at random in the remaining positions."""
    chosen = [values[i] for i in rng.integers(1, len(values), size=length)]
    chosen[position] = values[0]
    return tuple(chosen)


def _single(values: tuple[T, ...], rng: np.random.Generator) -> T:
    """One of the values that occur exactly once."""
    singles = [value for value in values if values.count(value) == 1]
    return singles[rng.integers(len(singles))]


def no_argument(rng: np.random.Generator) -> tuple[Scene, Argument]:
    return _draw_scene(rng), None


def note_position(rng: np.random.Generator) -> tuple[Scene, Argument]:
    scene = _draw_scene(rng)
    return scene, int(rng.integers(1, len(scene.notes) + 1))


def digit_position(rng: np.random.Generator) -> tuple[Scene, Argument]:
    return _draw_scene(rng), int(rng.integers(1, DIGITS_PER_STRIP + 1))


def any_timbre(rng: np.random.Generator) -> tuple[Scene, Argument]:
    return _draw_scene(rng), TIMBRES[rng.integers(len(TIMBRES))]


def digit_in_strip(rng: np.random.Generator) -> tuple[Scene, Argument]:
    scene = _draw_scene(rng)
    return scene, scene.digits[rng.integers(DIGITS_PER_STRIP)]


def single_timbre(rng: np.random.Generator) -> tuple[Scene, Argument]:
    scene = _draw_scene(rng)
    return scene, _single(scene.notes, rng)


def single_digit(rng: np.random.Generator) -> tuple[Scene, Argument]:
    scene = _draw_scene(rng)
    return scene, _single(scene.digits, rng)


def single_digit_with_note(rng: np.random.Generator) -> tuple[Scene, Argument]:
    """The digit asked about stands at a position at which a note plays."""
    position = int(rng.integers(MAX_NOTES))
    scene = _draw_scene(rng, digit_below=position + 1, least_notes=position + 1)
    within = [d for d in scene.digits[: len(scene.notes)] if scene.digits.count(d) == 1]
    return scene, within[rng.integers(len(within))]


def position_half_equal(rng: np.random.Generator) -> tuple[Scene, Argument]:
    """In half of the scenes the digit asked about is the number of notes."""
    scene, position = _draw_scene(rng), int(rng.integers(DIGITS_PER_STRIP))
    other = int(rng.integers(len(scene.notes) + 1, len(scene.notes) + 10)) % 10
    digit = len(scene.notes) if rng.random() < 0.5 else other
    digits = scene.digits[:position] + (digit,) + scene.digits[position + 1 :]
    return Scene(digits, scene.notes), position + 1
