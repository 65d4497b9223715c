"""The questions of `av_digits`: their groups, kinds, phrasings and answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from moka_peft.data import av_scenes as scenes
from moka_peft.data.av_scenes import Argument, Scene

GROUPS = ("Audio", "Visual", "Audio-Visual")  # MUSIC-AVQA's
_ORDINALS = ("first", "second", "third", "fourth")


@dataclass(frozen=True)
class Kind:
    """One kind of question: `draw` makes a scene and the argument asked about, `answer` solves it.

    A position as argument counts from 1. Phrasings may use {n} (the argument) and {nth} ("second").
    """

    group: str
    draw: Callable[[np.random.Generator], tuple[Scene, Argument]]
    answer: Callable[[Scene, Argument], str]
    phrasings: tuple[str, ...]

    def ask(self, argument: Argument, rng: np.random.Generator) -> str:
        """The question in one of its phrasings."""
        phrasing = self.phrasings[rng.integers(len(self.phrasings))]
        nth = _ORDINALS[argument - 1] if isinstance(argument, int) and 0 < argument <= len(_ORDINALS) else ""
        return phrasing.format(n=argument, nth=nth)


KINDS: dict[str, Kind] = {
    "note_count": Kind(
        "Audio",
        scenes.no_argument,
        lambda scene, _: str(len(scene.notes)),
        ("How many notes are played?", "Count the notes.", "What is the number of notes?"),
    ),
    "timbre_at_position": Kind(
        "Audio",
        scenes.note_position,
        lambda scene, n: scene.notes[n - 1],
        ("Which instrument plays the {nth} note?", "What is the instrument of note {n}?"),
    ),
    "last_timbre": Kind(
        "Audio",
        scenes.no_argument,
        lambda scene, _: scene.notes[-1],
        ("Which instrument plays last?", "What is the instrument of the last note?"),
    ),
    "timbre_count": Kind(
        "Audio",
        scenes.any_timbre,
        lambda scene, timbre: str(scene.notes.count(timbre)),
        ("How many notes are played by the {n}?", "Count the notes of the {n}."),
    ),
    "timbre_position": Kind(
        "Audio",
        scenes.single_timbre,
        lambda scene, timbre: str(scene.notes.index(timbre) + 1),
        ("Which note is played by the {n}?", "What is the position of the {n}?"),
    ),
    "digit_at_position": Kind(
        "Visual",
        scenes.digit_position,
        lambda scene, n: str(scene.digits[n - 1]),
        ("Which digit is at position {n}?", "What is the {nth} digit?"),
    ),
    "largest_digit": Kind(
        "Visual",
        scenes.no_argument,
        lambda scene, _: str(max(scene.digits)),
        ("Which digit is the largest?", "What is the largest digit?"),
    ),
    "smallest_digit": Kind(
        "Visual",
        scenes.no_argument,
        lambda scene, _: str(min(scene.digits)),
        ("Which digit is the smallest?", "What is the smallest digit?"),
    ),
    "digit_count": Kind(
        "Visual",
        scenes.digit_in_strip,
        lambda scene, digit: str(scene.digits.count(digit)),
        ("How many times is the digit {n} written?", "Count the digits that are {n}."),
    ),
    "digit_position": Kind(
        "Visual",
        scenes.single_digit,
        lambda scene, digit: str(scene.digits.index(digit) + 1),
        ("Where is the digit {n} written?", "What is the position of the digit {n}?"),
    ),
    "digit_at_note_count": Kind(
        "Audio-Visual",
        scenes.no_argument,
        lambda scene, _: str(scene.digits[len(scene.notes) - 1]),
        (
            "Count the notes. Which digit is at that position?",
            "Which digit is at the position equal to the number of notes?",
        ),
    ),
    "digit_at_timbre": Kind(
        "Audio-Visual",
        scenes.single_timbre,
        lambda scene, timbre: str(scene.digits[scene.notes.index(timbre)]),
        ("Which digit is at the position of the {n}?", "Which digit is written where the {n} plays?"),
    ),
    "timbre_at_digit": Kind(
        "Audio-Visual",
        scenes.single_digit_with_note,
        lambda scene, digit: scene.notes[scene.digits.index(digit)],
        (
            "Which instrument plays at the position of the digit {n}?",
            "Which instrument plays where the digit {n} is written?",
        ),
    ),
    "count_equals_digit": Kind(
        "Audio-Visual",
        scenes.position_half_equal,
        lambda scene, n: "yes" if scene.digits[n - 1] == len(scene.notes) else "no",
        (
            "Is the number of notes equal to the {nth} digit?",
            "Is the digit at position {n} equal to the number of notes?",
        ),
    ),
}


def kinds_by_group(groups: Sequence[str], kinds: Sequence[str] | None = None) -> dict[str, list[str]]:
    """The kinds of question that each group asks: all of its own, or those of them in `kinds`.

    Raises ValueError for an unknown kind, one of another group, and a group left without any.
    """
    if unknown := [name for name in kinds or () if name not in KINDS]:
        raise ValueError(f"`kinds` is wrong: expected some of {', '.join(KINDS)}, got {', '.join(unknown)}.")
    if foreign := [name for name in kinds or () if KINDS[name].group not in groups]:
        raise ValueError(
            f"`kinds` are of other groups: expected kinds of {', '.join(groups)}, got {', '.join(foreign)}."
        )
    chosen = list(KINDS) if kinds is None else [name for name in KINDS if name in kinds]
    found = {group: [name for name in chosen if KINDS[name].group == group] for group in groups}
    if empty := [group for group, names in found.items() if not names]:
        raise ValueError(
            f"`kinds` has none of the group {empty[0]}: expected at least one. Add one, or drop the group."
        )
    return found
