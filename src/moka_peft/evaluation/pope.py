"""POPE: is there such an object in the picture? Yes or no (Li et al., EMNLP 2023).

ROOT/coco_pope_{random,popular,adversarial}.json    # JSON lines, as published
ROOT/val2014/{image}                                # COCO's pictures of 2014; or ROOT/coco/val2014/, ROOT/
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moka_peft.data.containers.json_lines import JsonLines
from moka_peft.data.datasets.layout import first_medium, text_field
from moka_peft.data.formats.row import Row
from moka_peft.evaluation.benchmark import Benchmark
from moka_peft.evaluation.question import Question
from moka_peft.evaluation.record import Protocol, Record
from moka_peft.evaluation.rows import layout, rows_of
from moka_peft.evaluation.score import Judged, Score, score_shares
from moka_peft.evaluation.words import first_yes_or_no, right_yes_or_no

SPLITS = ("random", "popular", "adversarial")


def load(folder: Path, split: str = "all") -> list[Question]:
    """The questions of one split, or of all three."""
    found = []
    for name in SPLITS if split == "all" else (split,):
        path = layout("pope", folder).find("the annotation file", f"coco_pope_{name}.json")
        found += [_question(row, name) for row in rows_of(JsonLines(path), folder)]
    return found


def _question(row: Row, split: str) -> Question:
    image, right = text_field(row, "image"), text_field(row, "label").lower()
    if right not in ("yes", "no"):
        raise row.fail("label", f"expected yes or no, got {right!r}. Correct the row.")
    path = first_medium(row, "image", [f"val2014/{image}", f"coco/val2014/{image}", image])
    name = f"{split}-{text_field(row, 'question_id')}"
    return Question(name, text_field(row, "text"), right, (path,), facts={"split": split}, where=row.where)


def prompt(question: Question, template: str) -> str:
    return template.format(question=question.text)


def parse(record: Record, protocol: Protocol) -> Judged:
    """strict: the first word must be yes or no; authors: yes anywhere, else no anywhere (also inside "know").

    Raises ValueError where the reference is neither.
    """
    right = right_yes_or_no(record)
    if protocol == "strict":
        said = first_yes_or_no(record.prediction)
    else:
        said = next((word for word in ("yes", "no") if word in record.prediction.lower()), None)
    return Judged(said, float(said == right))


def score(records: Sequence[Record], judged: Sequence[Judged], protocol: Protocol) -> Score:
    """Accuracy over all rows; the rates of a detector of objects, overall and per split where records name one."""
    splits = sorted({str(record.facts["split"]) for record in records if record.facts.get("split") is not None})
    details: dict[str, Any] = rates(records, judged)
    details["splits"] = {split: rates(*_of_split(records, judged, split)) for split in splits} or None
    return score_shares(records, judged, _split, **details)


def rates(records: Sequence[Record], judged: Sequence[Judged]) -> dict[str, float | None]:
    """Accuracy, precision, recall, F1 and share of yes, in per cent; yes is positive, an unparseable answer is neither.

    None where nothing is to be divided by.
    """
    said = [one.parsed == "yes" for one in judged]
    right = [right_yes_or_no(record) == "yes" for record in records]
    hits = sum(a and b for a, b in zip(said, right, strict=True))
    return {
        "accuracy": _percent(sum(one.right or 0.0 for one in judged), len(judged)),
        "precision": _percent(hits, sum(said)),
        "recall": _percent(hits, sum(right)),
        "f1": _percent(2 * hits, sum(said) + sum(right)),
        "yes_ratio": _percent(sum(said), len(said)),
    }


def _percent(part: float, whole: int) -> float | None:
    return 100 * part / whole if whole else None


def _split(record: Record) -> list[str]:
    return [] if record.facts.get("split") is None else [str(record.facts["split"])]


def _of_split(records: Sequence[Record], judged: Sequence[Judged], split: str) -> tuple[list[Record], list[Judged]]:
    kept = [(a, b) for a, b in zip(records, judged, strict=True) if split in _split(a)]
    return [a for a, _ in kept], [b for _, b in kept]


BENCHMARK = Benchmark(
    "POPE",
    load,
    prompt,
    parse,
    score,
    template="<image>\n{question}\nPlease answer with yes or no.",
    options={"split": ("all", *SPLITS)},
    published={"random": 2910, "popular": 3000, "adversarial": 3000},
)
