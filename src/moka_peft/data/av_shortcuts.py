"""Text that states an answer: what makes questions of `av_digits` answerable, or not, without looking or listening.

    "The answer is 7. Which digit is at the position of the bell?"

A share of the questions states an answer, and a share of these a wrong one. Where nearly all are right, reading is
easier to learn than looking; questions that state nothing, or something wrong, show whether a model still looks.
"""

import numpy as np

from moka_peft.data.notes import TIMBRES

_ALIKE = (tuple("0123456789"), TIMBRES, ("yes", "no"))


def draw_told(answer: str, shortcuts: float, misleading: float, rng: np.random.Generator) -> str | None:
    """The answer that the text states, None for none; a wrong one is of the right one's sort.

    The same random numbers decide for all shares: with a larger share, the same questions state an answer and more.
    """
    states, misleads = rng.random(2)
    if states >= shortcuts:
        return None
    others = [other for alike in _ALIKE if answer in alike for other in alike if other != answer]
    return others[rng.integers(len(others))] if misleads < misleading else answer


def state_answer(told: str | None) -> str:
    """What stands before the question."""
    return "" if told is None else f"The answer is {told}. "


def group_of(group: str, told: str | None, answer: str) -> str:
    """The group that a question is reported in: those that state an answer apart from the others."""
    if told is None:
        return group
    return f"{group}, told" if told == answer else f"{group}, misled"
