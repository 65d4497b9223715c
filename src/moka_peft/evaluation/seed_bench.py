"""SEED-Bench: one of four choices, by letter, on a picture or a video (Li et al., CVPR 2024, arXiv 2307.16125).

ROOT/SEED-Bench.json            # an object: `questions`, and `question_type`, which names the twelve types
ROOT/SEED-Bench-image/{data_id} # pictures, whose names have no ending; or ROOT/{data_id}
ROOT/v1_video/{data_id}         # the frames of a video, where `data_id` lists them; or ROOT/{data_id}
ROOT/videos/{data_id}           # a video, where `data_id` names one; or ROOT/{data_id}

Listed frames are asked about as so many pictures. A video of which a question means a `segment` only is an error: the
published frames are those of the segment.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from moka_peft.data.containers.contents import parse_json
from moka_peft.data.datasets.layout import first_medium, text_field
from moka_peft.data.formats.row import MediaFolder, Row
from moka_peft.evaluation import letters
from moka_peft.evaluation.benchmark import Benchmark
from moka_peft.evaluation.question import Question
from moka_peft.evaluation.record import Protocol, Record
from moka_peft.evaluation.rows import layout
from moka_peft.evaluation.score import Judged, Score, score_shares

PLACES = {"image": ("SEED-Bench-image/", ""), "frames": ("v1_video/", ""), "video": ("videos/", "")}


def load(folder: Path, part: str = "image") -> list[Question]:
    """The questions on pictures, on videos, or all."""
    path = layout("seed_bench", folder).find("the questions", "SEED-Bench.json")
    content = parse_json(path.read_bytes(), str(path))
    types = {str(number): name for name, number in _entry(content, "question_type", Mapping, path).items()}
    rows = list(_rows(_entry(content, "questions", list, path), path, folder))
    return [_question(row, types) for row in rows if part in ("all", _kind(row))]


def _entry(content: Any, key: str, kind: type, path: Path) -> Any:
    found = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(found, kind):
        expected = "an object with a list `questions` and an object `question_type`"
        raise ValueError(f"{path}, `{key}` is missing or wrong: expected {expected}. Download the file again.")
    return found


def _rows(questions: Sequence[Any], path: Path, folder: Path) -> Iterator[Row]:
    for number, data in enumerate(questions, 1):
        row = Row(data, f"{path}, question {number}", f"{path.stem}-{number}", MediaFolder(folder))
        if not isinstance(data, Mapping):
            raise row.fail("row", f"expected an object, got {data!r}. Download the file again.")
        yield row


def _kind(row: Row) -> str:
    kind = text_field(row, "data_type").lower()
    if kind not in ("image", "video"):
        raise row.fail("data_type", f"expected image or video, got {kind!r}. Correct it; SEED-Bench-2 has others.")
    return kind


def _question(row: Row, types: Mapping[str, str]) -> Question:
    number = text_field(row, "question_type_id")
    if number not in types:
        raise row.fail("question_type_id", f"expected one of {', '.join(types)}, got {number}. Correct the row.")
    choices = letters.choices_of(row, {letter: f"choice_{letter.lower()}" for letter in "ABCD"})
    return Question(
        text_field(row, "question_id"),
        text_field(row, "question"),
        letters.reference_of(row, choices),
        **_media(row),
        facts={"choices": choices, "question_type": types[number], "data_type": _kind(row)},
        where=row.where,
    )


def _media(row: Row) -> dict[str, tuple[str, ...]]:
    """What a question is about: a picture, a video's frames, or a video."""
    kind, names = _kind(row), row.data.get("data_id")
    if isinstance(names, list) and names:
        return {"images": tuple(_find(row, str(name), "frames" if kind == "video" else kind) for name in names)}
    name = text_field(row, "data_id")
    if kind == "video" and row.data.get("segment") is not None:
        raise row.fail("segment", "a part of a video cannot be asked about: expected `data_id` to list its frames.")
    return {f"{kind}s": (_find(row, name, kind),)}


def _find(row: Row, name: str, kind: str) -> str:
    return first_medium(row, "data_id", [place + name for place in PLACES[kind]])


def score(records: Sequence[Record], judged: Sequence[Judged], protocol: Protocol) -> Score:
    """Accuracy over all rows, over those on pictures and on videos, and per question type where records name one."""
    return score_shares(records, judged, _groups)


def _groups(record: Record) -> list[str]:
    """A record that does not say what it is on, such as the authors', is taken to be on a picture."""
    return [*(letters.named(record, "data_type") or ["image"]), *letters.named(record, "question_type")]


BENCHMARK = Benchmark(
    "SEED-Bench",
    load,
    letters.prompt,
    letters.parse,
    score,
    template=letters.TEMPLATE,
    options={"part": ("image", "video", "all")},
    published={"image": 14233, "video": 5009},  # not "all": the pictures alone are a whole result
)
