"""What records come to: which answers could be read, which were right, and the number with its interval."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moka_peft.evaluation.record import Record
from moka_peft.training.metrics import wilson_interval

Interval = tuple[float, float]


@dataclass(frozen=True)
class Judged:
    """What a protocol makes of one record.

    parsed: the answer that was read, as plain JSON data; None where none could be. right: 1 or 0, or the share of it
    that is right; None where the protocol leaves the record out of its denominator.
    """

    parsed: Any
    right: float | None


@dataclass(frozen=True)
class Share:
    """How many of some records are right; score and interval (Wilson, 95 %) in per cent, None where nothing counts."""

    right: float
    records: int
    unparseable: int
    score: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Score:
    """A benchmark's number: in per cent, or for MME points; None where no record counts.

    interval: 95 %. groups: a question type's name -> its share. details: what else the benchmark reports. partial: why
    this is not the number of the whole benchmark, where that takes more than counting records.
    """

    score: float | None
    interval: Interval | None
    groups: Mapping[str, Share] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    partial: str | None = None


def share_of(judged: Iterable[Judged]) -> Share:
    """The share of right ones among those that count."""
    judged = list(judged)
    counted = [one.right for one in judged if one.right is not None]
    right, unparseable = sum(counted), sum(one.parsed is None for one in judged)
    if not counted:
        return Share(0, len(judged), unparseable, None, None)
    low, high = wilson_interval(right, len(counted))
    return Share(right, len(judged), unparseable, 100 * right / len(counted), (100 * low, 100 * high))


def grouped(
    records: Sequence[Record], judged: Sequence[Judged], names: Callable[[Record], Iterable[str]]
) -> dict[str, Share]:
    """The share of each group; names: the groups that a record is in. Groups come in alphabetical order."""
    found: dict[str, list[Judged]] = {}
    for record, one in zip(records, judged, strict=True):
        for name in names(record):
            found.setdefault(name, []).append(one)
    return {name: share_of(found[name]) for name in sorted(found)}


def score_shares(
    records: Sequence[Record], judged: Sequence[Judged], names: Callable[[Record], Iterable[str]], **details: Any
) -> Score:
    """The score of a benchmark that counts right answers."""
    whole = share_of(judged)
    return Score(whole.score, whole.interval, grouped(records, judged, names), details)
