"""MMAU: which of some choices is right about a recording? Its test-mini part (Sakshi et al., ICLR 2025).

ROOT/mmau-test-mini.json            # as published: one JSON list
ROOT/test-mini-audios/{id}.wav      # or ROOT/audios/, ROOT/
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moka_peft.data.containers.json_list import JsonList
from moka_peft.data.datasets.layout import first_medium, text_field
from moka_peft.data.formats.row import Row
from moka_peft.evaluation.benchmark import Benchmark
from moka_peft.evaluation.question import Question
from moka_peft.evaluation.record import Protocol, Record
from moka_peft.evaluation.rows import layout, rows_of
from moka_peft.evaluation.score import Judged, Score, score_shares
from moka_peft.evaluation.words import without_marks

TASKS = ("speech", "sound", "music")
_FACTS = ("difficulty", "category", "sub-category")
_TOKEN = re.compile(r"\b\w+\b")


def load(folder: Path, split: str = "test-mini", task: str = "all") -> list[Question]:
    """The questions of one task, or of all three. Media of other tasks need not be there."""
    path = layout("mmau", folder).find("the annotation file", f"mmau-{split}.json")
    return [_question(row) for row in rows_of(JsonList(path), folder) if _task(row) == task or task == "all"]


def _task(row: Row) -> str:
    task = text_field(row, "task")
    if task not in TASKS:
        raise row.fail("task", f"expected one of {', '.join(TASKS)}, got {task!r}. Correct the row.")
    return task


def _question(row: Row) -> Question:
    choices = row.data.get("choices")
    if not _are_choices(choices):
        raise row.fail("choices", f"expected a list of two texts or more, got {choices!r}. Correct the row.")
    name = text_field(row, "audio_id").rsplit("/", 1)[-1]
    path = first_medium(row, "audio_id", [f"test-mini-audios/{name}", f"audios/{name}", name])
    facts = {"task": _task(row), **{key: row.data.get(key) for key in _FACTS}, "choices": choices}
    text, answer = text_field(row, "question"), text_field(row, "answer")
    return Question(text_field(row, "id"), text, answer, audios=(path,), facts=facts, where=row.where)


def _are_choices(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(text, str) for text in value)


def prompt(question: Question, template: str) -> str:
    """Choices have no letters: the rule would take the "a" of "(A) An adult man" for a word of "A woman"."""
    lines = "\n".join(f"- {choice}" for choice in question.facts["choices"])
    return template.format(question=question.text, choices=lines)


def parse(record: Record, protocol: Protocol) -> Judged:
    """MMAU's own rule, under both protocols; parsed: the choice that it would call right.

    Only choices of the same words can both fit. MMAU takes either for right, so the right one is named.
    """
    choices = record.facts["choices"]
    if not _are_choices(choices):
        expected = "expected a list of two texts or more"
        raise ValueError(f"{record.where}, `choices`: {expected}, got {choices!r}. Correct the record.")
    if not record.reference.strip():  # whatever names no choice would be right
        raise record.wrong_reference("the text of a choice")
    said = tokens(without_marks(record.prediction))
    parsed = next((choice for choice in (record.reference, *choices) if fits(choice, said, choices)), None)
    return Judged(parsed, float(parsed == record.reference))


def tokens(text: str) -> frozenset[str]:
    """The different words of a text, in lower case."""
    return frozenset(_TOKEN.findall(text.lower()))


def fits(choice: str, said: frozenset[str], choices: Sequence[str]) -> bool:
    """Whether all words of a choice were said, and none of another choice that it does not have itself."""
    own = tokens(choice)
    wrong = frozenset().union(*map(tokens, choices)) - own
    return bool(said) and own <= said and not wrong & said


def score(records: Sequence[Record], judged: Sequence[Judged], protocol: Protocol) -> Score:
    """Accuracy over all rows, per task, per difficulty and per both."""
    return score_shares(records, judged, _groups)


def _groups(record: Record) -> list[str]:
    """As far as a record names them: "speech", "easy", "speech/easy"."""
    names = [str(record.facts[key]) for key in ("task", "difficulty") if record.facts.get(key) is not None]
    return [*names, "/".join(names)] if len(names) > 1 else names


BENCHMARK = Benchmark(
    "MMAU",
    load,
    prompt,
    parse,
    score,
    template="<audio>\n{question}\n{choices}\nAnswer with the text of the right choice.",
    max_new_tokens=64,  # choices are whole sentences, and a word that is cut off counts as not said
    options={"split": ("test-mini",), "task": ("all", *TASKS)},
    needs={"choices": ("choices",)},
    published={"speech": 333, "sound": 333, "music": 334},  # not "all": one task alone is a whole result
)
