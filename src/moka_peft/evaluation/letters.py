"""Questions with lettered choices: how they are asked, which letter was answered, and whether it is right."""

import re
from collections.abc import Mapping

from moka_peft.data.formats.row import Row
from moka_peft.evaluation.question import Question
from moka_peft.evaluation.record import Protocol, Record
from moka_peft.evaluation.score import Judged
from moka_peft.evaluation.words import without_marks

TEMPLATE = "<image>\n{question}\n{choices}\nPlease answer with the letter of the right choice."

_LETTER = re.compile(r"[(\[]?([A-Za-z])[)\]]?\.?")


def cell(row: Row, key: str) -> str | None:
    """What a row has under a key, as a text; None where there is nothing: no key, null, "" or "nan"."""
    value = row.data.get(key)
    text = "" if value is None else str(value).strip()
    return None if text.lower() in ("", "nan") else text


def choices_of(row: Row, keys: Mapping[str, str]) -> dict[str, str]:
    """The choices that a row has; keys: letter -> the row's key. Raises ValueError where there are fewer than two."""
    choices = {letter: text for letter, key in keys.items() if (text := cell(row, key)) is not None}
    if len(choices) < 2:
        key = next(key for letter, key in keys.items() if letter not in choices)
        raise row.fail(key, f"expected at least two choices, got {len(choices)}. Correct the row.")
    return choices


def reference_of(row: Row, choices: Mapping[str, str]) -> str:
    """The letter of the right choice. Raises ValueError where it is none of the choices."""
    right = letter_in(str(row.data.get("answer")))
    if right is None or right not in choices:
        raise row.fail("answer", f"expected one of {', '.join(choices)}, got {row.data.get('answer')!r}. Correct it.")
    return right


def prompt(question: Question, template: str) -> str:
    """A line for each choice; where the template has an image, as many as the question has, or its video."""
    tags = "<image>" * len(question.images) + "<video>" * len(question.videos)
    choices = "\n".join(f"{letter}. {text}" for letter, text in question.facts["choices"].items())
    return template.replace("<image>", tags).format(question=question.text, choices=choices)


def parse(record: Record, protocol: Protocol) -> Judged:
    """strict: nothing but a letter, as in B, b, "B." or "(B)"; authors: the first of a to e that a space follows
    anywhere, be it the end of a word. Raises ValueError where the reference is no letter."""
    right = letter_in(record.reference)
    if right is None:
        raise record.wrong_reference("the letter of a choice")
    said = letter_in(record.prediction) if protocol == "strict" else _first_before_space(record.prediction)
    return Judged(said, float(said == right))


def letter_in(text: str) -> str | None:
    """The letter, upper case, of a text that is nothing else but brackets or a full stop."""
    found = _LETTER.fullmatch("".join(without_marks(text).split()))
    return found[1].upper() if found else None


def _first_before_space(text: str) -> str | None:
    said = text.strip().lower()
    return next((letter.upper() for letter in "abcde" if f"{letter} " in said), None)


def named(record: Record, fact: str) -> list[str]:
    """The group that a record names under a fact, if it names one."""
    return [] if record.facts.get(fact) is None else [str(record.facts[fact])]
