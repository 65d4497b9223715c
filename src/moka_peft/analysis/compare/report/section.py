"""One table of a comparison in the report: what was found, plots, numbers."""

from collections.abc import Callable, Sequence

from moka_peft.analysis.compare import formats
from moka_peft.analysis.compare.columns import Column, against, names_of, sections_of
from moka_peft.analysis.compare.lines import Line
from moka_peft.analysis.compare.report.curves import draw_curves
from moka_peft.analysis.compare.report.forest import draw_forest
from moka_peft.analysis.compare.report.grids import draw_grid, draw_runs
from moka_peft.analysis.compare.report.markup import Markup, tag
from moka_peft.analysis.compare.report.rows import NARROW, WIDE
from moka_peft.analysis.compare.report.sizes import draw_sizes
from moka_peft.analysis.compare.report.strips import draw_strips
from moka_peft.analysis.compare.report.words import tell_findings
from moka_peft.analysis.compare.results import Table

CAPTIONS = {
    "forest": "Differences in score, paired by seed. Upper line: 95 % interval over seeds; lower, pale line: over "
    "seeds and questions. A filled mark stands for a difference that the upper interval sets apart from zero.",
    "curves": "Mean score at each value, with its 95 % interval over seeds.",
    "strips": "Score of every run, the baseline's in dark. Dashed: the mean of the baseline, where there is but one.",
    "sizes": "Mean score and its standard deviation over seeds, against the adapter's parameters.",
}


def draw_section(name: str, table: Table, lines: Sequence[Line]) -> Markup:
    """The section with the id `name`."""
    heading = tag("h2", table.name)
    if not lines:
        return tag("section", heading, tag("p", "No run of this table is finished."), id=name)
    findings = tag("ul", *(tag("li", told) for told in tell_findings(lines)), class_="findings")
    missing = dict.fromkeys(line.difference.missing for line in lines if line.difference and line.difference.missing)
    gaps = [tag("p", f"Where an interval is missing: {reason}.", class_="note") for reason in missing]
    return tag("section", heading, findings, *gaps, *_plots(table, lines), *_grids(name, table, lines), id=name)


def _plots(table: Table, lines: Sequence[Line]) -> list[Markup]:
    plots: dict[str, Callable[[float, str], Markup | None]] = {
        "curves": lambda width, class_: _curves(lines, table.axis, width, class_),
        "forest": lambda width, class_: draw_forest(lines, table.axis, width=width, class_=class_),
        "strips": lambda width, class_: draw_strips(lines, table.axis, width=width, class_=class_),
        "sizes": lambda width, class_: draw_sizes(lines, width=width, class_=class_),
    }
    if table.axis is not None:
        del plots["sizes"]  # the axis says what differs, and the names of so many points are not read
    drawn = [(CAPTIONS[plot], draw(WIDE, "wide"), draw(NARROW, "narrow")) for plot, draw in plots.items()]
    return [tag("figure", wide, narrow, tag("figcaption", told)) for told, wide, narrow in drawn if wide]


def _curves(lines: Sequence[Line], axis: str | None, width: float, class_: str) -> Markup | None:
    return None if axis is None else draw_curves(lines, axis, width=width, class_=class_)


def _grids(name: str, table: Table, lines: Sequence[Line]) -> list[Markup]:
    names, sections = names_of(table.axis), sections_of(lines, table.axis)
    holm = Column("p (Holm)", lambda line: formats.p_value(line.p_adjusted), lambda line: line.p_adjusted)
    grids = {
        "scores": ("Scores and costs", [*sections["score"], *sections["size"], *sections["cost"]], lines),
        "differences": (
            f"Differences to {against(lines)}",
            [*sections["difference"][:-1], holm, *sections["difference"][-1:]],
            [line for line in lines if line.difference],
        ),
        "groups": (f"Scores per question group, {formats.unit(lines[0].metric)}", sections["groups"], lines),
    }
    drawn = [
        draw_grid(f"{name}-{end}", told, [*names, *columns], own)
        for end, (told, columns, own) in grids.items()
        if columns and own
    ]
    runs = draw_runs(f"{name}-runs", "Every run", lines)
    count = sum(len(line.results) for line in lines)
    return [*drawn, tag("details", tag("summary", f"All {count} runs"), runs)]
