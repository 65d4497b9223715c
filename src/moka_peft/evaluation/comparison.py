"""Several models' answers to one benchmark, question by question: which is better, and is it more than chance?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PureWindowsPath
from typing import Any, NamedTuple

from moka_peft.evaluation.benchmark import Benchmark
from moka_peft.evaluation.paired import half_width, holm, mcnemar, newcombe_interval
from moka_peft.evaluation.record import Protocol, Record
from moka_peft.evaluation.same_questions import pair_by_id
from moka_peft.evaluation.score import Interval, Judged

SCORED_TOGETHER: dict[str, Callable[[Record], tuple[str, str]]] = {
    "mme": lambda record: (str(record.facts["subtask"]), PureWindowsPath(record.facts["image"]).name),
}
"""Benchmarks whose score is a sum over subtasks -> a record's subtask and picture; a picture's pairs of questions are
scored together, and a subtask's score is the mean over its pairs. All others score the mean over their records."""

NEWCOMBE = "Newcombe's method 10"
SHARES = "mean of paired differences"
PICTURES = "mean of paired differences, by picture within a subtask"

Answer = tuple[Record, Judged]
Pair = tuple[Answer, Answer]


class Table(NamedTuple):
    """How many records are right in both, in one and in neither."""

    both: int
    only_baseline: int
    only_run: int
    neither: int


@dataclass(frozen=True)
class Contrast:
    """A run beside the baseline, over the records that the protocol counts in both.

    left_out: the records that it counts in one of them at most. right: how many are right, each of them as a whole.
    baseline_score, score, difference and interval (95 %, by the method `interval_by`) are in the benchmark's unit; None
    where nothing counts, the interval also where nothing tells its width. p: of McNemar's exact test; p_adjusted:
    Holm's, over the comparison's runs.
    """

    run: str
    records: int
    left_out: int
    right: Table
    baseline_score: float | None
    score: float | None
    difference: float | None
    interval: Interval | None
    interval_by: str
    p: float
    p_adjusted: float

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self) | {"right": self.right._asdict()}


@dataclass(frozen=True)
class Comparison:
    """Runs of one benchmark beside the first of them. details: what must be known to read the numbers."""

    benchmark: str
    protocol: Protocol
    baseline: str
    unit: str
    contrasts: tuple[Contrast, ...]
    details: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self) | {"contrasts": [one.as_json() for one in self.contrasts]}


def compare_records(
    benchmark: Benchmark, name: str, runs: Mapping[str, Sequence[Record]], protocol: Protocol
) -> Comparison:
    """Compares runs of the benchmark called `name` with the first; their records are paired by id.

    Raises ValueError for records without ids, and for runs that were not asked the same questions.
    """
    if len(runs) < 2:
        raise ValueError(f"`runs` of {name} are too few: expected two or more, got {len(runs)}. Give another one.")
    baseline, *others = runs
    contrasts = [_contrast(benchmark, name, run, pair_by_id(name, runs, baseline, run), protocol) for run in others]
    adjusted = holm([one.p for one in contrasts])
    contrasts = [replace(one, p_adjusted=p) for one, p in zip(contrasts, adjusted, strict=True)]
    in_part = any(one.interval_by == SHARES for one in contrasts)
    details = {"right": "McNemar's test takes a record as right where all of it is."} if in_part else {}
    return Comparison(name, protocol, baseline, benchmark.unit, tuple(contrasts), details)


def _contrast(
    benchmark: Benchmark, name: str, run: str, asked: Sequence[tuple[Record, Record]], protocol: Protocol
) -> Contrast:
    """One run beside the baseline; p is not adjusted yet."""
    judged = [_judge(benchmark, records, protocol) for records in asked]
    pairs = [pair for pair in judged if all(one.right is not None for _, one in pair)]
    rights = [(float(first.right or 0), float(second.right or 0)) for (_, first), (_, second) in pairs]
    wholly = [(first >= 1, second >= 1) for first, second in rights]
    table = Table(*map(wholly.count, [(True, True), (True, False), (False, True), (False, False)]))
    before, after = _scores(benchmark, pairs, protocol)
    difference = None if before is None or after is None else after - before
    if name in SCORED_TOGETHER:
        by, interval = PICTURES, _around(difference, _pictures(benchmark, pairs, protocol, SCORED_TOGETHER[name]))
    elif any(0 < right < 1 for pair in rights for right in pair):
        by, interval = SHARES, _around(difference, [[(1.0, 100 * (second - first)) for first, second in rights]])
    else:
        low, high = newcombe_interval(*table) if pairs else (0.0, 0.0)
        by, interval = NEWCOMBE, (100 * low, 100 * high) if pairs else None
    p = mcnemar(table.only_baseline, table.only_run)
    return Contrast(run, len(pairs), len(asked) - len(pairs), table, before, after, difference, interval, by, p, p)


def _judge(benchmark: Benchmark, records: tuple[Record, Record], protocol: Protocol) -> Pair:
    first, second = records
    return (first, benchmark.parse(first, protocol)), (second, benchmark.parse(second, protocol))


def _scores(benchmark: Benchmark, pairs: Sequence[Pair], protocol: Protocol) -> tuple[float | None, float | None]:
    """Of the baseline's answers and of the run's."""
    sides = [[pair[side] for pair in pairs] for side in (0, 1)]
    before, after = (benchmark.score([one for one, _ in side], [one for _, one in side], protocol) for side in sides)
    return before.score, after.score


def _around(difference: float | None, strata: Sequence[Sequence[tuple[float, float]]]) -> Interval | None:
    half = half_width(strata)
    return None if difference is None or half is None else (difference - half, difference + half)


def _pictures(
    benchmark: Benchmark, pairs: Sequence[Pair], protocol: Protocol, place: Callable[[Record], tuple[str, str]]
) -> list[list[tuple[float, float]]]:
    """Per subtask, each picture's pairs of questions and the difference of its scores."""
    found: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        found.setdefault(place(pair[0][0]), []).append(pair)
    strata: dict[str, list[tuple[float, float]]] = {}
    for (subtask, _), own in found.items():
        before, after = _scores(benchmark, own, protocol)
        if before is not None and after is not None:  # None where a picture has one question only
            strata.setdefault(subtask, []).append((len(own) // 2, after - before))
    return [*strata.values()]
