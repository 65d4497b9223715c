"""The report as one page that opens anywhere: style, script, plots and numbers are all inside."""

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from moka_peft.analysis.compare.lines import Line
from moka_peft.analysis.compare.report.markup import Markup, join, tag
from moka_peft.analysis.compare.report.section import draw_section
from moka_peft.analysis.compare.report.words import DEFINITIONS, warn_of_many
from moka_peft.analysis.compare.results import Result, Table
from moka_peft.training.folder import flatten

Summaries = Sequence[tuple[Table, Sequence[Line]]]


def draw_page(summaries: Summaries, *, title: str, notes: Sequence[str], settings: Mapping[str, Any]) -> str:
    """The whole page as HTML."""
    names = [f"table-{place}" for place in range(1, len(summaries) + 1)]
    sections = [draw_section(name, *summary) for name, summary in zip(names, summaries, strict=True)]
    links = [*zip(names, (table.name for table, _ in summaries), strict=True), *ENDS.items()]
    body = [
        tag("header", tag("h1", title), tag("p", _facts(summaries), class_="lead")),
        tag("nav", tag("ul", *(tag("li", tag("a", told, href=f"#{name}")) for name, told in links))),
        tag("main", _notes(notes), *sections, _how(summaries, settings), *_reading(summaries)),
    ]
    head = [Markup('<meta charset="utf-8">'), _meta("viewport", "width=device-width, initial-scale=1")]
    head += [_meta("color-scheme", "light dark"), tag("title", title), tag("style", Markup(_asset("page.css")))]
    script = tag("script", Markup(_asset("page.js")))
    page = tag("html", tag("head", *head), tag("body", *body, script), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


SHORT = 40  # letters of a setting and its value that fit beside others
ENDS = {"how": "What was compared", "definitions": "Definitions", "many": "Multiple comparisons"}


def _meta(name: str, content: str) -> Markup:
    return Markup(f'<meta name="{name}" content="{content}">')


def _asset(name: str) -> str:
    return files("moka_peft.analysis.compare.report").joinpath(name).read_text(encoding="utf-8")


def _runs(summaries: Summaries) -> list[Result]:
    """Every run once, also of several tables."""
    return list({run.cell: run for _, lines in summaries for line in lines for run in line.results.values()}.values())


def _facts(summaries: Summaries) -> str:
    runs = _runs(summaries)
    if not runs:
        return "No run is finished."
    seeds = sorted({len(line.results) for _, lines in summaries for line in lines})
    span = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    variants, metrics = {run.variant for run in runs}, ", ".join(sorted({run.metric for run in runs}))
    questions = ", ".join(str(count) for count in sorted({run.questions for run in runs}))
    return (
        f"{len(variants)} methods, {len(runs)} runs, {span} seeds per row, {questions} held-out questions, "
        f"scored by {metrics}."
    )


def _notes(notes: Sequence[str]) -> Markup | None:
    return tag("ul", *(tag("li", note) for note in notes), class_="notes") if notes else None


def _how(summaries: Summaries, settings: Mapping[str, Any]) -> Markup:
    """Settings, seeds and machines."""
    shown = {key: _as_text(value) for key, value in flatten(settings).items()}
    machines = Counter(tuple((key, str(value)) for key, value in run.machine.items()) for run in _runs(summaries))
    parts: list[object] = [tag("h2", ENDS["how"])]
    if shown:
        parts += [tag("h3", "Settings"), _pairs(shown)]
    for facts, count in machines.most_common():
        parts += [tag("h3", f"Machine and versions of {count} runs"), _pairs(dict(facts))]
    return tag("section", *parts, id="how")


def _as_text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _pairs(values: Mapping[str, str]) -> Markup:
    return tag("dl", *(_pair(key, value) for key, value in values.items()), class_="pairs")


def _pair(key: str, value: str) -> Markup:
    return tag("div", tag("dt", key), tag("dd", value), class_="long" if len(key) + len(value) > SHORT else None)


def _reading(summaries: Summaries) -> list[Markup]:
    """How to read the numbers, and the warning."""
    entries = join(part for term, told in DEFINITIONS.items() for part in (tag("dt", term), tag("dd", told)))
    warning = tag("p", warn_of_many([lines for _, lines in summaries]))
    return [
        tag("section", tag("h2", ENDS["definitions"]), tag("dl", entries, class_="definitions"), id="definitions"),
        tag("section", tag("h2", ENDS["many"]), warning, id="many", class_="warning"),
    ]
