"""Lettered choices, in MMBench and SEED-Bench: PAPER's rules for letters, and what a record and a row must have."""

from pathlib import Path

import pytest

from moka_peft.data.formats.row import MediaFolder, Row
from moka_peft.evaluation import letters

from .records import judge, scored, write_records

BOTH = pytest.mark.parametrize("benchmark", ["mmbench", "seed_bench"])


@BOTH
@pytest.mark.parametrize(
    ("prediction", "reference", "strict", "authors"),
    [
        ("B", "B", ("B", 1), (None, 0)),  # no space follows
        ("b </s>", "B", ("B", 1), ("B", 1)),  # the mark is not removed, so one does
        (" B\n", "B", ("B", 1), (None, 0)),
        ("B. </s>", "B", ("B", 1), (None, 0)),
        ("(B)", "B", ("B", 1), (None, 0)),
        ("[ B ].", "B", ("B", 1), ("B", 1)),
        ("(B) </s>", "(B)", ("B", 1), (None, 0)),
        ("B cat", "b", (None, 0), ("B", 1)),
        ("C or B ", "C", (None, 0), ("C", 1)),
        ("D is a c ", "A", (None, 0), ("A", 1)),  # a goes first, wherever it stands
        ("banana is", "A", (None, 0), ("A", 1)),  # the "a " inside
        ("The answer", "E", (None, 0), ("E", 1)),  # the "e " inside
        ("F is it", "F", (None, 0), (None, 0)),  # letters after e are not looked for
        ("F", "A", ("F", 0), (None, 0)),  # no choice of any row: read, and wrong
        ("AB", "A", (None, 0), (None, 0)),
        ("A\tB", "A", (None, 0), (None, 0)),
        ("2", "B", (None, 0), (None, 0)),
        ("é", "E", (None, 0), (None, 0)),
        ("", "A", (None, 0), (None, 0)),
    ],
)
def test_letter(benchmark, prediction, reference, strict, authors):
    for protocol, (parsed, right) in (("strict", strict), ("authors", authors)):
        judged = judge(benchmark, prediction, reference, protocol)
        assert (judged.parsed, judged.right) == (parsed, right), protocol


@BOTH
def test_all_rows_are_in_the_denominator(tmp_path, benchmark):
    said = ["A </s>", "(B)", "nothing", "D </s>"]
    rows = [{"question": "?", "answer": letter, "output": [text]} for letter, text in zip("ABCC", said, strict=True)]
    path = write_records(tmp_path, rows)
    strict, authors = scored(benchmark, path, "strict"), scored(benchmark, path, "authors")
    assert (strict.score, strict.records, strict.unparseable, strict.dropped) == (50.0, 4, 1, 0)
    assert (authors.score, authors.records, authors.unparseable, authors.dropped) == (25.0, 4, 2, 0)
    assert strict.partial is not None and strict.partial.startswith("4 of ")


@BOTH
def test_a_reference_that_is_no_letter_is_an_error(tmp_path, benchmark):
    path = write_records(tmp_path, [{"question": "?", "answer": "a dog", "output": ["A"]}])
    with pytest.raises(
        ValueError, match=r"records\.jsonl, line 1, `answer`: expected the letter of a choice, got 'a dog'"
    ):
        scored(benchmark, path, "strict")


def row(**data):
    return Row(data, "FILE, row 3", "3", MediaFolder(Path()))


KEYS = {letter: f"choice_{letter}" for letter in "ABCD"}


def test_choices_are_those_that_a_row_has():
    data = {"choice_A": 0, "choice_B": " None ", "choice_C": "nan", "choice_D": "", "answer": "(b)"}
    choices = letters.choices_of(row(**data), KEYS)
    assert choices == {"A": "0", "B": "None"}
    assert letters.reference_of(row(**data), choices) == "B"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"choice_A": "x", "choice_C": None}, r"FILE, row 3, `choice_B`: expected at least two choices, got 1"),
        ({"choice_A": "x", "choice_B": "y", "answer": "C"}, r"FILE, row 3, `answer`: expected one of A, B, got 'C'"),
        ({"choice_A": "x", "choice_B": "y", "answer": "AB"}, r"FILE, row 3, `answer`: expected one of A, B, got 'AB'"),
    ],
)
def test_rows_with_too_few_choices_or_another_answer_are_errors(data, message):
    with pytest.raises(ValueError, match=message):
        letters.reference_of(row(**data), letters.choices_of(row(**data), KEYS))
