"""The choices of a question: their letters, and which of them an answer names."""

import re
from collections.abc import Mapping

from moka_peft.evaluation.words import without_marks

# "B" alone, on a line of its own, or before one of ) . : , and "(B)" or "[B]" before anything.
_LETTER = re.compile(r"[(\[]\s*([a-z])\s*[)\]]|([a-z])[^\S\n]*(?:[).:,\n]|$)", re.IGNORECASE)
_AROUND = " \t\r\n`\"'"  # white space and quotes, which models set around an answer


def choice_lines(choices: Mapping[str, str]) -> str:
    """The choices as a prompt shows them: "(A) text", each on a line."""
    return "\n".join(f"({letter}) {text}" for letter, text in choices.items())


def named_choice(answer: str, choices: Mapping[str, str]) -> str | None:
    """The letter of the choice that an answer leads with, else of the only one whose text it holds as whole words.

    choices: capital letter -> text. Neither case nor stress (`**B**`) matters.
    """
    answer = without_marks(answer).replace("*", "").strip(_AROUND)
    return _leading(answer, choices) or _held(answer, choices)


def _leading(answer: str, choices: Mapping[str, str]) -> str | None:
    """The choice whose letter comes first, as a letter: the article of "A man speaks" is none, unless A reads "man"."""
    if found := _LETTER.match(answer):
        letter = (found[1] or found[2]).upper()
        return letter if letter in choices else None
    letter, rest = answer[:1].upper(), answer[1:]
    leads = rest[:1].isspace() and letter in choices and _whole(_plain(choices[letter])).match(_plain(rest))
    return letter if leads else None


def _held(answer: str, choices: Mapping[str, str]) -> str | None:
    """The only choice whose text is in an answer; "twenty two" does not hold "two" where both are choices."""
    answer, found = _plain(answer), []
    plain = {letter: _plain(text) for letter, text in choices.items()}
    for letter, text in sorted(plain.items(), key=lambda item: len(item[1]), reverse=True):
        if text in answer:  # spares most patterns, which cost more than all else here
            answer, count = _whole(text).subn("\0", answer)
            found += [letter] * (count > 0)
    return found[0] if len(found) == 1 else None


def _plain(text: str) -> str:
    """Lower case, single spaces, and no full stop at the end, which an answer may lack."""
    words = " ".join(text.lower().split())
    return words.removesuffix(".") or words


def _whole(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(text)}(?!\w)")
