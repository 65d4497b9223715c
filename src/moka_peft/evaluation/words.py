"""Reading a word out of what a model said, or out of what is right."""

import re

from moka_peft.evaluation.record import Record

MARKS = re.compile(r"</?s>|<unk>")  # special tokens that a tokenizer left in the text
_WORD = re.compile(r"[^\W\d_]+")


def without_marks(text: str) -> str:
    """A text without the special tokens at which models begin and end."""
    return MARKS.sub("", text)


def first_yes_or_no(text: str) -> str | None:
    """The first alphabetic word, in lower case, where it is exactly yes or no."""
    word = _WORD.search(without_marks(text))
    found = word[0].lower() if word else None
    return found if found in ("yes", "no") else None


def right_yes_or_no(record: Record) -> str:
    """What is right, in lower case. Raises ValueError where that is neither yes nor no."""
    right = without_marks(record.reference).strip().lower()
    if right not in ("yes", "no"):
        raise record.wrong_reference("yes or no")
    return right
