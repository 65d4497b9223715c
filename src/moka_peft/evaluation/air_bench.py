"""AIR-Bench's foundation part: which of two to four choices is right about a recording? (Yang et al., ACL 2024.)

ROOT/Foundation_meta.json                      # as published: one JSON list; or ROOT/Foundation/, then all else there
ROOT/{task_name}_{dataset_name}/{path}         # of Audio_Grounding: the same name ending in flac
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from moka_peft.data.containers.json_list import JsonList
from moka_peft.data.datasets.layout import first_medium, text_field
from moka_peft.data.formats.row import Row
from moka_peft.evaluation.benchmark import Benchmark
from moka_peft.evaluation.choices import choice_lines, named_choice
from moka_peft.evaluation.question import Question
from moka_peft.evaluation.record import Protocol, Record
from moka_peft.evaluation.rows import layout, rows_of
from moka_peft.evaluation.score import Judged, Score, grouped, score_shares
from moka_peft.evaluation.words import without_marks

CHOICES = {"A": "choice_a", "B": "choice_b", "C": "choice_c", "D": "choice_d"}
SPEECH = ("Speaker_", "Speech_", "Spoken_", "Synthesized_Voice_")  # how the names of the nine speech tasks begin
PUBLISHED = {
    "Speaker_Age_Prediction": 1000,
    "Speaker_Emotion_Recontion": 2000,  # this and others below are spelled as published
    "Speaker_Gender_Recognition": 1992,
    "Speaker_Intent_Classification": 1000,
    "Speaker_Number_Verification": 1000,
    "Speech_Entity_Reconition": 1000,
    "Speech_Grounding": 981,
    "Spoken_Language_Identification": 1000,
    "Synthesized_Voice_Detection": 1000,
    "Acoustic_Scene_Classification": 2000,
    "Audio_Grounding": 896,
    "Sound_AQA": 2000,
    "vocal_sound_classification": 1000,
    "Music_AQA": 814,
    "Music_Genre_Recognition": 2000,
    "Music_Instruments_Classfication": 2000,
    "Music_Midi_Pitch_Analysis": 1000,
    "Music_Midi_Velocity_Analysis": 1000,
    "Music_Mood_Recognition": 1000,
}


def load(folder: Path, part: str = "speech") -> list[Question]:
    """The questions of the speech tasks, or of all tasks. Media of other tasks need not be there."""
    found = layout("air_bench", folder)
    path = found.find("the annotation file", "Foundation_meta.json", "Foundation/Foundation_meta.json")
    rows = rows_of(JsonList(path), path.parent)
    return [_question(row) for row in rows if part == "all" or text_field(row, "task_name").startswith(SPEECH)]


def _question(row: Row) -> Question:
    task, dataset = text_field(row, "task_name"), text_field(row, "dataset_name")
    choices, answer = _published_choices(row.data), _text(row.data.get("answer_gt"))
    if len(choices) < 2:
        raise row.fail("choice_b", f"expected two choices or more, got {choices}. Correct the row.")
    right = _letter_of(answer, choices)
    if right is None:
        raise row.fail("answer_gt", f"expected the text of one of {choices}, got {answer!r}. Correct the row.")
    name, text = f"{task}-{dataset}-{text_field(row, 'uniq_id')}", text_field(row, "question")
    facts = {"task": task, "dataset": dataset, "choices": choices}
    return Question(name, text, right, audios=(_audio(row, task, dataset),), facts=facts, where=row.where)


def _audio(row: Row, task: str, dataset: str) -> str:
    path = PurePosixPath(f"{task}_{dataset}", text_field(row, "path"))
    paths = [path, path.with_suffix(".flac")] if task == "Audio_Grounding" else [path]
    return first_medium(row, "path", [str(path) for path in paths])


def _published_choices(data: Mapping[str, Any]) -> dict[str, str]:
    """The choices of a published row, by letter."""
    return _texts({letter: data.get(key) for letter, key in CHOICES.items()})


def _texts(choices: Mapping[str, Any]) -> dict[str, str]:
    """The choices that are there, as texts; C and D often are not."""
    return {letter: text for letter, value in choices.items() if (text := _text(value))}


def _text(value: Any) -> str:
    """A choice as a prompt shows it; numbers and spans of time become text, what is missing an empty one."""
    return "" if value is None else str(value).strip()


def _letter_of(text: str, choices: Mapping[str, str]) -> str | None:
    return next((letter for letter, choice in choices.items() if choice == text), None)


def prompt(question: Question, template: str) -> str:
    return template.format(question=question.text, choices=choice_lines(question.facts["choices"]))


def parse(record: Record, protocol: Protocol) -> Judged:
    """strict: the choice that is named, by its letter or its text; an answer that names none is wrong.

    authors: AIR-Bench's own rule, the first character ("B. male"), else the last but one ("It is (B)"), where that is
    a capital from A to D; the record is dropped where neither is.
    """
    choices = _choices(record)
    right = _right(record, choices)
    if protocol == "strict":
        said = named_choice(record.prediction, choices)
        return Judged(said, float(said == right))
    text = without_marks(record.prediction).strip().replace("\n", "")
    said = next((letter for letter in (text[:1], text[-2:-1]) if letter in ("A", "B", "C", "D")), None)
    return Judged(said, None if said is None else float(said == right))


def _choices(record: Record) -> dict[str, str]:
    """The choices by letter. Our records have them so, those of AIR-Bench's own script as published rows do."""
    given = record.facts["choices"]
    choices = _texts(given) if isinstance(given, Mapping) else _published_choices(record.facts)
    if len(choices) < 2:
        raise ValueError(f"{record.where}, `choices`: expected two or more by letter, got {given!r}. Correct them.")
    return choices


def _right(record: Record, choices: Mapping[str, str]) -> str:
    """The letter of the right choice, of which AIR-Bench's own script keeps the text."""
    reference = record.reference.strip()
    by_letter = isinstance(record.facts["choices"], Mapping) and reference in choices
    right = reference if by_letter else _letter_of(reference, choices)
    if right is None:
        raise record.wrong_reference(f"one of {choices}")
    return right


def score(records: Sequence[Record], judged: Sequence[Judged], protocol: Protocol) -> Score:
    """Accuracy over all rows and per task.

    details: task_mean, the mean of the tasks' scores; datasets, the scores that AIR-Bench's script prints, by task and
    dataset.
    """
    tasks, datasets = (_scores(records, judged, keys) for keys in (("task",), ("task", "dataset")))
    mean = sum(tasks.values()) / len(tasks) if tasks else None
    return score_shares(records, judged, lambda one: _name(one, ["task"]), task_mean=mean, datasets=datasets or None)


def _scores(records: Sequence[Record], judged: Sequence[Judged], keys: Iterable[str]) -> dict[str, float]:
    shares = grouped(records, judged, lambda one: _name(one, keys))
    return {name: share.score for name, share in shares.items() if share.score is not None}


def _name(record: Record, keys: Iterable[str]) -> list[str]:
    """A record's group, where it names it; the keys of AIR-Bench's own script end in _name."""
    found = [record.facts.get(key) or record.facts.get(f"{key}_name") for key in keys]
    return ["_".join(map(str, found))] if all(found) else []


BENCHMARK = Benchmark(
    "AIR-Bench (foundation)",
    load,
    prompt,
    parse,
    score,
    template="<audio>\n{question}\n{choices}\nAnswer with the letter of the right choice.",
    options={"part": ("speech", "all")},
    needs={"choices": ("choices", "choice_a")},
    published=PUBLISHED,
)
