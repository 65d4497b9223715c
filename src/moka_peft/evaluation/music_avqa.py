"""MUSIC-AVQA: what can be seen and heard in videos of people who make music (Li et al., CVPR 2022).

The published layout, or that of MokA's authors: data/datasets/music_avqa.py says what lies where.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from moka_peft.data.datasets import open_dataset
from moka_peft.data.datasets.music_avqa import PROMPT, question_types
from moka_peft.data.formats.row import MediaFolder, Row
from moka_peft.evaluation.benchmark import Benchmark
from moka_peft.evaluation.question import Question
from moka_peft.evaluation.record import Protocol, Record
from moka_peft.evaluation.rows import rows_of
from moka_peft.evaluation.score import Judged, Score, score_shares

ANSWERS = tuple(
    (
        "zero, one, two, three, four, five, six, seven, eight, nine, ten, more than ten, yes, no, left, middle, right, "
        "indoor, outdoor, simultaneously, accordion, acoustic_guitar, bagpipe, banjo, bassoon, cello, clarinet, "
        "congas, drum, electric_bass, erhu, flute, guzheng, piano, pipa, saxophone, suona, trumpet, tuba, ukulele, "
        "violin, xylophone"
    ).split(", ")
)

_TAGGED = re.compile(r"<answer>(.*?)</answer>")  # on one line: a newline inside is no match
_ASKED = PROMPT.format(question="")  # before each question in training


def load(folder: Path, split: str = "test") -> list[Question]:
    """The questions of a split, with the bare answers."""
    return [_question(row) for part in open_dataset("music_avqa", folder, split) for row in rows_of(part, folder)]


def _question(row: Row) -> Question:
    """What training asks, without the prompt that stands before it there, and the tags around the answer."""
    asked, answered = (message["content"] for message in row.data["messages"])
    return Question(
        row.data["id"],
        asked.removeprefix(_ASKED),
        _TAGGED.sub(r"\1", answered),
        videos=tuple(row.data["videos"]),
        audios=tuple(row.data["audios"]),
        facts={"type": [row.data["group"], row.data["kind"]]},
        where=row.where,
    )


def prompt(question: Question, template: str) -> str:
    return template.format(question=question.text)


def parse(record: Record, protocol: Protocol) -> Judged:
    """strict: the tagged answer must be the right one; authors: the right one must be in it ("ten" in "more than ten").

    Where no answer can be read, strict takes it for wrong, and authors leave the record out.
    """
    said, right = read_answer(record.prediction), _right(record)
    if protocol == "strict":
        return Judged(said, float(said == right))
    return Judged(said, None if said is None else float(right in said))


def read_answer(text: str) -> str | None:
    """The answer in the only pair of tags, in lower case, where it is one of the 42."""
    found = _TAGGED.findall(text)
    said = found[0].strip().lower() if len(found) == 1 else None
    return said if said in ANSWERS else None


def _right(record: Record) -> str:
    """The right answer, in lower case, without tags and what comes after the end."""
    text = record.reference.split("</s>")[0]
    right = (tagged[1] if (tagged := _TAGGED.search(text)) else text).strip().lower()
    if not right:  # nothing is in everything: each answer would be right
        raise record.wrong_reference("an answer")
    return right


def score(records: Sequence[Record], judged: Sequence[Judged], protocol: Protocol) -> Score:
    """The share of right answers; of each sense, and of each type of its questions, all of them together."""
    return score_shares(records, judged, _groups)


def _groups(record: Record) -> list[str]:
    """For instance Audio and Audio/Counting."""
    group, kind = question_types(Row(record.facts, record.where, record.id, MediaFolder(Path())))
    return [group, f"{group}/{kind}"]


BENCHMARK = Benchmark(
    "MUSIC-AVQA",
    load,
    prompt,
    parse,
    score,
    template=PROMPT,
    max_new_tokens=256,  # reasoning may come before the answer
    options={"split": ("test", "val")},
    needs={"type": ("type", "question_type")},
    published={"all": 9185},
)
