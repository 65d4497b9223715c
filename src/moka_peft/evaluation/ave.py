"""AVE: which event is seen and heard in a ten-second video, and in which of its seconds (Tian et al., ECCV 2018).

The published layout, or that of MokA's authors: data/datasets/ave.py says what lies where.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from moka_peft.data.datasets import open_dataset
from moka_peft.data.datasets.ave import PROMPT
from moka_peft.data.formats.row import Row
from moka_peft.evaluation.ave_events import EVENTS, NAMES, SLOTS, slots
from moka_peft.evaluation.benchmark import Benchmark
from moka_peft.evaluation.question import Question
from moka_peft.evaluation.record import Protocol, Record
from moka_peft.evaluation.rows import rows_of
from moka_peft.evaluation.score import Judged, Score, score_shares

ASKED = PROMPT.rsplit("\n", 1)[1]  # the same of every video

_EVENT = re.compile(r"<event>(.*?)</event>")  # on one line: a newline inside is no match
_RANGE = re.compile(r"<range>(.*?)</range>")
_INSIDE = re.compile(r"\(\s*(\d+)\s+(\d+)\s*\)")  # "Bark, (0 4)"
_REFERENCE = re.compile(r"event:(.*?)start_time")


@dataclass(frozen=True)
class Found:
    """An event, by its name in lower case, and its ranges of seconds; a range may be reversed, or lie outside."""

    event: str
    ranges: tuple[tuple[int, int], ...]


def load(folder: Path, split: str = "test") -> list[Question]:
    """The videos of a split; what is right is written as MokA's authors do."""
    return [_question(row) for part in open_dataset("ave", folder, split) for row in rows_of(part, folder)]


def _question(row: Row) -> Question:
    """What training asks, with its answer in the form of references."""
    event, found = row.data["kind"], read_event(row.data["messages"][1]["content"])
    if found is None or found.event not in EVENTS:
        raise row.fail("Category", f"expected one of {'; '.join(EVENTS)}; got {event!r}. Correct the row.")
    [(start, end)] = found.ranges
    right = f"event:{event} start_time:{start} end_time:{end}"
    videos, audios = tuple(row.data["videos"]), tuple(row.data["audios"])
    return Question(row.data["id"], ASKED, right, videos=videos, audios=audios, where=row.where)


def prompt(question: Question, template: str) -> str:
    return template.format(question=question.text)


def parse(record: Record, protocol: Protocol) -> Judged:
    """Which share of the ten seconds has the right event, or rightly none.

    Where no event can be read, strict takes all ten for wrong, and authors leave the record out.
    """
    right, found = read_reference(record), read_event(record.prediction)
    if found is None and protocol == "authors":
        found = read_inside_event(record.prediction)
    if found is None:
        return Judged(None, 0.0 if protocol == "strict" else None)
    pairs = zip(slots(right.event, right.ranges), slots(found.event, found.ranges), strict=True)
    parsed = {"event": found.event, "ranges": [[*one] for one in found.ranges]}
    return Judged(parsed, sum(a == b for a, b in pairs) / SLOTS)


def read_event(text: str) -> Found | None:
    """A known event in the only pair of its tags, with every range that can be read; None without one of either."""
    event, ranges = _named(text).lower(), _ranges(text)
    return Found(event, ranges) if event in NAMES and ranges else None


def read_inside_event(text: str) -> Found | None:
    """A known event whose ranges stand behind it, within its tags: the second try of the authors' script."""
    name = _named(text)
    event = _INSIDE.split(name)[0].strip().rstrip(",").lower()
    ranges = tuple(pair for found in _INSIDE.findall(name) if (pair := _integers(found)))
    return Found(event, ranges) if event in NAMES and ranges else None


def _named(text: str) -> str:
    """What stands in the tags of an event, where there is one pair of them; else nothing."""
    found = _EVENT.findall(text)
    return found[0].strip() if len(found) == 1 else ""


def _ranges(text: str) -> tuple[tuple[int, int], ...]:
    """Each range of two integers; others are passed over."""
    return tuple(pair for found in _RANGE.findall(text) if (pair := _integers(found.split(","))))


def _integers(texts: Sequence[str]) -> tuple[int, int] | None:
    """Both, where there are two."""
    try:
        start, end = map(int, texts)
    except ValueError:
        return None
    return start, end


def read_reference(record: Record) -> Found:
    """What is right: "event:Bark start_time:0 end_time:3</s>". Raises ValueError, naming file and row."""
    text = record.reference.replace("</s>", "").strip()
    named = _REFERENCE.search(text)
    event = named[1].strip().lower() if named else ""
    seconds = _integers([piece.rsplit(":", 1)[-1] for piece in text.split(" ")[-2:]])
    if event not in NAMES or seconds is None:
        raise record.wrong_reference("`event:NAME start_time:SECOND end_time:SECOND` with one of AVE's events")
    return Found(event, (seconds,))


def score(records: Sequence[Record], judged: Sequence[Judged], protocol: Protocol) -> Score:
    """The share of right seconds, over all records and by the event that is right.

    authors: their script fills an array of ten seconds per record from the front, with the records that it keeps; the
    rest stays background on both sides. So all seconds of a record that is left out count as right, as here, in its
    group too. The interval takes each record for one answer, since its seconds go together; a share of them spreads
    less than right and wrong do, so the interval is too wide rather than too narrow.
    """
    dropped = sum(one.right is None for one in judged)
    counted = [replace(one, right=1.0) if one.right is None else one for one in judged]
    right = round(SLOTS * sum(one.right or 0.0 for one in counted))
    details = {"slots": SLOTS * len(records), "slots_right": right, "slots_dropped_counted_right": SLOTS * dropped}
    return score_shares(records, counted, lambda record: [read_reference(record).event], **details)


BENCHMARK = Benchmark(
    "AVE",
    load,
    prompt,
    parse,
    score,
    template=PROMPT.replace(ASKED, "{question}"),
    max_new_tokens=256,  # a description may come before the event
    options={"split": ("test", "val")},
    published={"all": 402},
)
