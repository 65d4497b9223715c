"""Results and comparisons as tables for the terminal, 80 columns wide at most."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from moka_peft.evaluation.comparison import Comparison
from moka_peft.evaluation.record import Protocol
from moka_peft.evaluation.score import Interval, Share
from moka_peft.evaluation.summary import Summary

Summaries = Mapping[Protocol, Summary]

NOTHING = "-"


def summary_table(summaries: Mapping[str, Summaries]) -> Group:
    """A row per benchmark, with the protocols' numbers side by side; below, why a result is partial.

    The interval is the first protocol's. summaries: a benchmark's name -> protocol -> its result.
    """
    protocols: list[Protocol] = [*dict.fromkeys(protocol for both in summaries.values() for protocol in both)]
    shown = _table(["benchmark"], [protocols[0], "95 %", *protocols[1:], "records", "unparseable", "dropped"])
    for name, both in summaries.items():
        first, *rest = (both.get(protocol) for protocol in protocols)
        results = [one for one in (first, *rest) if one]
        _add(
            shown,
            name + ("*" if any(one.partial for one in results) else ""),
            _number(first and first.score),
            _interval(first and first.interval),
            *(_number(one and one.score) for one in rest),
            f"{results[0].records:,}",
            "/".join(dict.fromkeys(f"{one.unparseable:,}" for one in results)),
            "/".join(dict.fromkeys(f"{one.dropped:,}" for one in results)),
        )
    return Group(shown, *(Text(note) for note in _notes(summaries)))


def _notes(summaries: Mapping[str, Summaries]) -> Iterator[str]:
    """What a number is of where it is no share in per cent, and why it is not of the whole set."""
    for name, both in summaries.items():
        units = {one.unit for one in both.values()} - {"%"}
        yield from (f"{name}: {unit}" for unit in units)
        reasons = dict.fromkeys(one.partial for one in both.values() if one.partial)
        yield from (f"* {name} is partial: {reason}" for reason in reasons)


def groups_table(both: Summaries) -> Table:
    """A row for all records of a benchmark and one for each group, with each protocol's score and interval."""
    results = list(both.values())
    shown = _table(["group"], ["records", *(word for protocol in both for word in (protocol, "95 %"))])
    _add(shown, "all", f"{results[0].records:,}", *_pairs(results))
    for name in dict.fromkeys(name for one in results for name in one.groups):
        shares = [one.groups.get(name) for one in results]
        _add(shown, name, f"{next(share.records for share in shares if share):,}", *_pairs(shares))
    return shown


def _pairs(results: Sequence[Summary | Share | None]) -> Iterator[str]:
    for one in results:
        yield from (_number(one and one.score), _interval(one and one.interval))


def details_table(both: Summaries) -> Table | None:
    """What else a benchmark reports, each protocol's beside the other's; None where that is nothing."""
    flat = [dict(_flat(one.details)) for one in both.values()]
    shown = _table(["detail"], both)
    for name in dict.fromkeys(name for details in flat for name in details):
        _add(shown, name, *(_value(details.get(name)) for details in flat))
    return shown if shown.row_count else None


def _flat(details: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Each value and where it stands: ("splits.random.accuracy", 40.0)."""
    for name, value in details.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif value is not None:
            yield f"{before}{name}", value


def comparison_table(comparison: Comparison) -> Group:
    """A row per run: its score, how far that is from the baseline's, and whether that is more than chance."""
    adjusted = ["Holm"] if len(comparison.contrasts) > 1 else []
    shown = _table(["run"], ["score", "difference", "95 %", "better", "worse", "p", *adjusted])
    for one in comparison.contrasts:
        _add(
            shown,
            one.run,
            _number(one.score),
            _number(one.difference, "+.2f"),
            _interval(one.interval, "+.2f"),
            f"{one.right.only_run:,}",
            f"{one.right.only_baseline:,}",
            _p_value(one.p),
            *(_p_value(one.p_adjusted) for _ in adjusted),
        )
    return Group(Text(_title(comparison), "bold"), shown, *(Text(note) for note in _told(comparison)))


def _title(comparison: Comparison) -> str:
    unit = "points" if comparison.unit == "%" else comparison.unit
    scores = " or ".join(dict.fromkeys(_number(one.baseline_score) for one in comparison.contrasts))
    return f"{comparison.benchmark}, {comparison.protocol}: against {comparison.baseline} ({scores}), in {unit}"


def _told(comparison: Comparison) -> Iterator[str]:
    """What the numbers are of, and how they were come by."""
    for one in comparison.contrasts:
        left_out = f", {one.left_out:,} left out" if one.left_out else ""
        yield (
            f"{one.run}: {one.records:,} pairs{left_out}; {one.right.both:,} right in both, {one.right.neither:,} in "
            f"neither; interval: {one.interval_by}"
        )
    yield "better, worse: records that only the run, or only the baseline, has right; p: McNemar's exact test"
    yield from comparison.details.values()


def _number(value: float | None, form: str = ".2f") -> str:
    return NOTHING if value is None else format(round(value, 2) + 0.0, form)  # no -0.00


def _interval(interval: Interval | None, form: str = ".2f") -> str:
    return NOTHING if interval is None else f"{_number(interval[0], form)}..{_number(interval[1], form)}"


def _p_value(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _value(value: Any) -> str:
    return NOTHING if value is None else _number(value) if isinstance(value, float) else str(value)


def _table(words: Sequence[str], numbers: Sequence[str] | Mapping[Any, Any]) -> Table:
    shown = Table(box=SIMPLE_HEAD, padding=0, show_edge=False, pad_edge=False, header_style="")
    for name in words:
        shown.add_column(name, overflow="fold")
    for name in numbers:
        shown.add_column(name, justify="right", no_wrap=True)
    return shown


def _add(table: Table, *cells: str) -> None:
    """A row of plain text: brackets in a name are no markup."""
    table.add_row(*map(Text, cells))
