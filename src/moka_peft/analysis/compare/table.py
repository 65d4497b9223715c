"""The tables of a comparison in the terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from moka_peft.analysis.compare.columns import Column, against, names_of, sections_of
from moka_peft.analysis.compare.lines import Line, summarise
from moka_peft.analysis.compare.results import Table

LEGEND = (
    "95 % intervals of the paired difference: t over seeds, bootstrap over seeds and questions. unclear: the first "
    "holds zero; seeds only: the second does. A difference is over pairs, the seeds that a method and its baseline "
    "both have; with unequal numbers of seeds it is not that of the two means."
)
UNBOUNDED = 10_000  # columns: what a table would like
STYLES = {"better": "green", "worse": "red"}


def show(tables: Sequence[Table], console: Console) -> None:
    """Prints every table, in as many pieces as the terminal's width asks for; a row without a run is left out."""
    for table in tables:
        lines = summarise(table)
        console.print(Text(_title(table, lines), style="bold"))
        if lines:
            for piece in _fit(table, lines, console):
                console.print(piece)
                console.print()
            console.print(Text(_legend(lines) + "\n"))


def _title(table: Table, lines: Sequence[Line]) -> str:
    if not lines:
        return f"{table.name}: no run is finished"
    name = against(lines)
    return f"{table.name}: {lines[0].metric} on {lines[0].questions} questions" + (f", against {name}" if name else "")


def _legend(lines: Sequence[Line]) -> str:
    reasons = dict.fromkeys(line.difference.missing for line in lines if line.difference and line.difference.missing)
    return "\n".join([LEGEND, *(f"No interval: {reason}." for reason in reasons)])


def _fit(table: Table, lines: Sequence[Line], console: Console) -> list[Grid]:
    """The columns side by side as far as they fit, the rest below; a section stays together where it can."""
    names, here = names_of(table.axis), []
    pieces: list[list[Column]] = [here]
    for section in sections_of(lines, table.axis).values():
        whole = [section] if _fits([*names, *section], lines, console) else [[column] for column in section]
        if not _fits([*names, *here, *section], lines, console):
            here = []
            pieces.append(here)
        for columns in whole:
            if here and not _fits([*names, *here, *columns], lines, console):
                here = []
                pieces.append(here)
            here += columns
    return [_grid([*names, *piece], lines) for piece in pieces if piece]


def _fits(columns: Sequence[Column], lines: Sequence[Line], console: Console) -> bool:
    grid = _grid(columns, lines)
    return console.measure(grid, options=console.options.update(width=UNBOUNDED)).maximum <= console.width


def _grid(columns: Sequence[Column], lines: Sequence[Line]) -> Grid:
    grid = Grid(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False, header_style="")
    for column in columns:
        grid.add_column(Text(column.name), justify="left" if column.is_words else "right", overflow="fold")
    for line in lines:
        grid.add_row(*(Text(column.show(line)) for column in columns), style=STYLES.get(line.verdict))
    return grid
