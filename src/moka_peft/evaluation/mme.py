"""MME, perception: two questions on each picture, yes or no, in ten subtasks (Fu et al., 2023, arXiv 2306.13394).

ROOT/{existence,count,position,color,OCR}/{name}.txt, {name}.jpg       # lines of QUESTION<TAB>Yes or No
ROOT/{posters,celebrity,scene,landmark,artwork}/questions_answers_YN/{name}.txt, images/{name}.jpg

Either form will do for each subtask, also below ROOT/MME_Benchmark_release_version/ or that folder's MME_Benchmark/.
"""

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, variance
from typing import Any

from moka_peft.data.containers.table import Table
from moka_peft.data.datasets.layout import first_medium, text_field
from moka_peft.data.formats.row import Row
from moka_peft.evaluation.benchmark import Benchmark
from moka_peft.evaluation.question import Question
from moka_peft.evaluation.record import Protocol, Record
from moka_peft.evaluation.rows import layout, rows_of
from moka_peft.evaluation.score import Interval, Judged, Score, grouped
from moka_peft.evaluation.words import first_yes_or_no, right_yes_or_no

PUBLISHED = {
    "existence": 60,
    "count": 60,
    "position": 60,
    "color": 60,
    "posters": 294,
    "celebrity": 340,
    "scene": 400,
    "landmark": 400,
    "artwork": 400,
    "OCR": 40,
}
SUBTASKS = tuple(PUBLISHED)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
ROOTS = ("", "MME_Benchmark_release_version/", "MME_Benchmark_release_version/MME_Benchmark/")
ENDINGS = ("jpg", "png", "jpeg")

Pair = tuple[float, float]
"""Whether each of a picture's two questions was answered right."""


def load(folder: Path) -> list[Question]:
    """The questions of the ten subtasks, in the order of their files' names."""
    return [question for subtask in SUBTASKS for path in _files(folder, subtask) for question in _read(path, subtask)]


def _files(folder: Path, subtask: str) -> list[Path]:
    names = [f"{root}{subtask}/{inner}*.txt" for root in ROOTS for inner in ("questions_answers_YN/", "")]
    found = (sorted(folder.glob(name)) for name in names)
    if (files := next(filter(None, found), None)) is None:
        raise layout("mme", folder).missing(f"subtask {subtask}", *names)
    return files


def _read(path: Path, subtask: str) -> list[Question]:
    folder = path.parent.parent if path.parent.name == "questions_answers_YN" else path.parent
    lines = Table(path, ("question", "answer"), separator="\t", header=False)
    return [_question(row, subtask, path.stem, number) for number, row in enumerate(rows_of(lines, folder), 1)]


def _question(row: Row, subtask: str, name: str, number: int) -> Question:
    right = text_field(row, "answer").lower()
    if right not in ("yes", "no"):
        raise row.fail("answer", f"expected Yes or No, got {right!r}. Correct the line.")
    image = first_medium(row, "image", [f"{place}{name}.{ending}" for ending in ENDINGS for place in ("images/", "")])
    facts = {"subtask": subtask, "image": Path(image).name}
    return Question(
        f"{subtask}-{name}-{number}", text_field(row, "question"), right, (image,), facts=facts, where=row.where
    )


def prompt(question: Question, template: str) -> str:
    return template.format(question=question.text)


def parse(record: Record, protocol: Protocol) -> Judged:
    """strict: the first word must be yes or no; authors: yes anywhere is yes, anything else no.

    MME's cognition subtasks are read, and left out of the score. Raises ValueError for a record of no subtask of MME.
    """
    subtask, right = record.facts["subtask"], right_yes_or_no(record)
    if subtask not in SUBTASKS + COGNITION:
        known = ", ".join(SUBTASKS + COGNITION)
        raise ValueError(f"{record.where}, `subtask`: expected one of {known}, got {subtask!r}. Correct the record.")
    if protocol == "strict":
        said = first_yes_or_no(record.prediction)
    else:
        said = "yes" if "yes" in record.prediction.lower() else "no"
    return Judged(said, float(said == right) if subtask in SUBTASKS else None)


def score(records: Sequence[Record], judged: Sequence[Judged], protocol: Protocol) -> Score:
    """The sum over the subtasks of accuracy and of the share of pictures with both answers right, at most 2,000.

    Only pairs count: a subtask's records of one picture, two by two in their order; an odd one is unpaired. authors:
    the posters are scored a second time in the place of the scenes. A subtask without records adds nothing and makes
    the result partial.
    """
    pictures = _pictures(records, judged)
    read = {name: "posters" if (protocol, name) == ("authors", "scene") else name for name in SUBTASKS}
    pairs = {name: _pairs(pictures[source]) for name, source in read.items()}
    subtasks = {name: _points(pictures[source], pairs[name]) for name, source in read.items()}
    missing = [name for name in dict.fromkeys(read.values()) if not pictures[name]]
    total = sum(one["score"] for one in subtasks.values()) if any(pairs.values()) else None
    return Score(
        total,
        _interval(total, [(pairs[name], [*read.values()].count(name)) for name in dict.fromkeys(read.values())]),
        grouped(records, judged, _subtask),
        {"subtasks": subtasks, "left_out": sum(one.right is None for one in judged)},
        f"no records of {', '.join(missing)}" if missing else None,
    )


def _pictures(records: Sequence[Record], judged: Sequence[Judged]) -> dict[str, list[list[float]]]:
    """For each subtask and each of its pictures, whether its answers are right, in the records' order."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in SUBTASKS}
    for record, one in zip(records, judged, strict=True):
        if one.right is not None:
            image = re.split(r"[/\\]", str(record.facts["image"]))[-1]
            found[record.facts["subtask"]].setdefault(image, []).append(one.right)
    return {name: [*pictures.values()] for name, pictures in found.items()}


def _pairs(pictures: Iterable[Sequence[float]]) -> list[Pair]:
    return [pair for rights in pictures for pair in zip(rights[::2], rights[1::2], strict=False)]


def _points(pictures: Sequence[Sequence[float]], pairs: Sequence[Pair]) -> dict[str, Any]:
    """A subtask's part of the sum; accuracies in per cent, None where there is no pair."""
    return {
        "accuracy": fmean(50 * (a + b) for a, b in pairs) if pairs else None,
        "accuracy_plus": fmean(100 * a * b for a, b in pairs) if pairs else None,
        "score": fmean(map(_worth, pairs)) if pairs else 0.0,
        "images": len(pairs),
        "unpaired": sum(len(rights) % 2 for rights in pictures),
    }


def _worth(pair: Pair) -> float:
    """What a pair adds to the mean that is its subtask's score."""
    return 50 * sum(pair) + 100 * pair[0] * pair[1]


def _interval(total: float | None, subtasks: Iterable[tuple[Sequence[Pair], int]]) -> Interval | None:
    """95 %, normal: the pairs are independent, a subtask's mean stands in the sum as often as is said.

    None where a subtask has only one pair, which tells nothing of the spread.
    """
    counted = [(pairs, times) for pairs, times in subtasks if pairs]
    if total is None or any(len(pairs) == 1 for pairs, _ in counted):
        return None
    spread = sum(times**2 * variance(map(_worth, pairs)) / len(pairs) for pairs, times in counted)
    half = 1.96 * math.sqrt(spread)
    return max(0.0, total - half), min(200.0 * len(SUBTASKS), total + half)


def _subtask(record: Record) -> list[str]:
    return [name for name in SUBTASKS if name == record.facts["subtask"]]


BENCHMARK = Benchmark(
    "MME (perception)",
    load,
    prompt,
    parse,
    score,
    template="<image>\n{question}",  # the questions end with what to answer
    needs={"subtask": ("subtask",), "image": ("image", "image_path")},
    published=PUBLISHED,
    unit="points",
)
