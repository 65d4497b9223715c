"""The columns of a comparison's tables, in the sections that terminal and report show them in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from moka_peft.analysis.compare import formats
from moka_peft.analysis.compare.lines import RANK, Line, short_name

Key = str | float | None
INTERVALS = {"95 % (t)": "interval", "95 % (bootstrap)": "bootstrap"}


@dataclass(frozen=True)
class Column:
    """`show` writes a line's value; `key` gives what it is sorted by, None where there is no value."""

    name: str
    show: Callable[[Line], str]
    key: Callable[[Line], Key]
    is_words: bool = False


def names_of(axis: str | None) -> list[Column]:
    """The columns that tell one row from another: the method, and its value on the axis."""
    method = Column("method", row_name, lambda line: line.method, is_words=True)
    if axis is None:
        return [method]
    return [method, Column(short_name(axis), lambda line: shown_value(line.value), lambda line: _sortable(line.value))]


def against(lines: Sequence[Line]) -> str:
    """What lines are compared with."""
    return " or ".join(dict.fromkeys(line.against for line in lines if line.against))


def sections_of(lines: Sequence[Line], axis: str | None) -> dict[str, list[Column]]:
    """Name of a section -> its columns; those of `names_of` come before them."""
    metric = lines[0].metric
    return {
        "size": _sizes(lines, axis),
        "score": _scores(metric),
        "difference": _differences(metric),
        "groups": [_group(name, metric) for name in _group_names(lines)],
        "cost": _costs(),
    }


def row_name(line: Line) -> str:
    return f"{line.method} (baseline)" if line.is_baseline else line.method


def _sizes(lines: Sequence[Line], axis: str | None) -> list[Column]:
    """The rank, where it is known and not the axis, and the adapter's parameters."""
    rank = Column("r", lambda line: shown_value(line.rank), lambda line: line.rank)
    parameters = Column("parameters", lambda line: formats.count(line.parameters), lambda line: line.parameters)
    is_known = axis != RANK and any(line.rank is not None for line in lines)
    return [rank, parameters] if is_known else [parameters]


def shown_value(value: object) -> str:
    return formats.NONE if value is None else str(value)


def _sortable(value: object) -> Key:
    return value if isinstance(value, int | float) or value is None else str(value)


def _scores(metric: str) -> list[Column]:
    return [
        Column(
            f"score ± sd, {formats.unit(metric)}",
            lambda line: formats.spread(line.score, metric),
            lambda line: line.score.mean,
        ),
        Column("seeds", lambda line: str(line.score.count), lambda line: line.score.count),
    ]


def _differences(metric: str) -> list[Column]:
    def of(line: Line, name: str) -> Any:
        return getattr(line.difference, name) if line.difference else None

    def low(line: Line, name: str) -> float | None:
        return of(line, name)[0] if of(line, name) else None

    def difference(line: Line) -> str:
        mean = of(line, "mean")
        return formats.NONE if mean is None else formats.score(mean, metric, sign=True)

    def pairs(line: Line) -> int | None:
        return len(line.difference.seeds) if line.difference else None

    return [
        Column("difference", difference, lambda line: of(line, "mean")),
        Column("verdict", lambda line: line.verdict, lambda line: line.verdict, is_words=True),
        *(
            Column(
                name,
                lambda line, end=end: formats.interval(of(line, end), metric),
                lambda line, end=end: low(line, end),
            )
            for name, end in INTERVALS.items()
        ),
        Column("p", lambda line: formats.p_value(of(line, "p")), lambda line: of(line, "p")),
        Column("pairs", lambda line: shown_value(pairs(line)), pairs),
    ]


def _group_names(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(name for line in lines for name in line.groups))


def _group(name: str, metric: str) -> Column:
    def show(line: Line) -> str:
        return formats.spread(line.groups[name], metric) if name in line.groups else formats.NONE

    return Column(name, show, lambda line: line.groups[name].mean if name in line.groups else None)


def _costs() -> list[Column]:
    return [
        Column("time", lambda line: formats.seconds(line.seconds.mean), lambda line: line.seconds.mean),
        Column("of baseline", lambda line: formats.ratio(line.seconds_ratio), lambda line: line.seconds_ratio),
        Column("memory", lambda line: formats.size(line.peak_bytes), lambda line: line.peak_bytes),
        Column("FLOPs/token", lambda line: formats.count(line.flops_per_token), lambda line: line.flops_per_token),
    ]
