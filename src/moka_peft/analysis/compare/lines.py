"""The lines of a comparison's table: all numbers that the terminal, the files and the report show of one row."""

from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from moka_peft.analysis.compare.results import Result, Row, Table
from moka_peft.analysis.compare.statistics import Difference, Spread, paired_difference, paired_ratio, spread
from moka_peft.evaluation.paired import holm
from moka_peft.training.folder import RECIPE
from moka_peft.training.methods import known_settings
from moka_peft.training.metrics import LOWER_IS_BETTER

RANK = "adapter.r"


def short_name(key: str) -> str:
    """A recipe key without its section."""
    return key.rpartition(".")[2]


@dataclass(frozen=True)
class Line:
    """A row's numbers.

    `label`: the method, and the value where the table has an axis. `groups`: scores per question group. `against`:
    what it is compared with, in words; None for a baseline, and where none was run. `seconds_ratio`: to the baseline,
    paired by seed. `p_adjusted`: by Holm, over the table.
    """

    label: str
    method: str
    variant: str
    value: Any
    metric: str
    rank: int | None
    parameters: int
    trained: int
    score: Spread
    groups: dict[str, Spread]
    is_baseline: bool
    against: str | None
    difference: Difference | None
    seconds: Spread
    seconds_ratio: float | None
    peak_bytes: float | None
    flops_per_token: float | None
    questions: int
    p_adjusted: float | None = None
    results: dict[int, Result] = field(default_factory=dict, repr=False)

    @property
    def verdict(self) -> str:
        """What the intervals say, in words."""
        if self.is_baseline:
            return "baseline"
        if self.against is None:
            return "no baseline"
        if self.difference is None or self.difference.interval is None:
            return "too few seeds" if self.difference is None or len(self.difference.seeds) < 2 else "no interval"
        sign = _side(self.difference.interval)
        if sign == 0:
            return "unclear"
        is_better = (sign > 0) != (self.metric in LOWER_IS_BETTER)
        alone = "" if self.difference.bootstrap and _side(self.difference.bootstrap) == sign else ", seeds only"
        return ("better" if is_better else "worse") + alone

    @property
    def mood(self) -> str:
        """The verdict in one word: better, worse or unclear."""
        return next((word for word in ("better", "worse") if self.verdict.startswith(word)), "unclear")


def _side(interval: tuple[float, float]) -> int:
    """1 or -1 where zero is below or above the interval, 0 where it is inside."""
    low, high = interval
    return int(low > 0) - int(high < 0)


def summarise(table: Table) -> list[Line]:
    """The lines of `table`, without rows that no run has finished."""
    lines = [_line(table, row) for row in table.rows if row.results]
    adjusted = holm([line.difference.p if line.difference else None for line in lines])
    return [replace(line, p_adjusted=p) for line, p in zip(lines, adjusted, strict=True)]


def find_baseline(table: Table, row: Row) -> Row | None:
    """The row that `row` is compared with: the baseline at the same value of the axis, or the one that has no value.

    None where there is no such row or it is not finished; `row` itself where it is a baseline.
    """
    finished = [one for one in table.rows if one.results]
    found = [one for one in finished if one.label == table.baseline]
    found = found or [one for one in finished if one.variant == table.baseline]
    if table.axis is not None:
        same = [one for one in found if one.value == row.value]
        found = same or [one for one in found if one.value is None]
    return found[0] if found else None


def _line(table: Table, row: Row) -> Line:
    runs = list(row.results.values())
    first, baseline = runs[0], find_baseline(table, row)
    against = None if baseline is row else baseline
    peaks = [run.peak_bytes for run in runs if run.peak_bytes is not None]
    names = [name for name in first.groups if all(name in run.groups for run in runs)]
    return Line(
        label=_name(table, row),
        method=row.label,
        variant=row.variant,
        value=row.value,
        metric=first.metric,
        rank=_rank(first),
        parameters=first.adapter_parameters,
        trained=first.trained_parameters,
        score=spread([run.score for run in runs]),
        groups={name: spread([run.groups[name] for run in runs]) for name in names},
        is_baseline=baseline is row,
        against=_what(table, against) if against else None,
        difference=paired_difference(row.results, against.results) if against else None,
        seconds=spread([run.seconds for run in runs]),
        seconds_ratio=paired_ratio(_seconds(row), _seconds(against)) if against else None,
        peak_bytes=max(peaks) if peaks else None,
        flops_per_token=first.flops_per_token,
        questions=first.questions,
        results=dict(row.results),
    )


def _name(table: Table, row: Row) -> str:
    if table.axis is None or row.value is None:
        return row.label
    return f"{row.label}, {short_name(table.axis)} {row.value}"


def _what(table: Table, baseline: Row) -> str:
    """A baseline in words for all rows that are compared with it or with its like."""
    if table.axis is None or baseline.value is None:
        return baseline.label
    return f"{baseline.label} at the same {short_name(table.axis)}"


def _seconds(row: Row) -> dict[int, float]:
    return {seed: run.seconds for seed, run in row.results.items()}


def _rank(run: Result) -> int | None:
    """The rank that a run's own recipe gives its method; without one, that of its settings."""
    path = run.folder / RECIPE
    if not path.is_file():
        return run.settings.get(RANK)
    adapter = yaml.safe_load(path.read_text(encoding="utf-8"))["adapter"]
    return adapter.get("r") if "r" in known_settings(adapter["method"]) else None
