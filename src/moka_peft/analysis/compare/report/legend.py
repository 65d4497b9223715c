"""The legend of a plot: samples of its marks with their names, in as many rows as they need."""

from collections.abc import Callable, Sequence

from moka_peft.analysis.compare.report.markup import Markup, join
from moka_peft.analysis.compare.report.svg import LETTER, text

SAMPLE, GAP, ROW = 24, 18, 20  # pixels: a mark, the space between entries, a row's height

Entry = tuple[Callable[[float, float], Markup], str]


def draw_legend(entries: Sequence[Entry], left: float, width: float) -> tuple[Markup, float]:
    """The entries from `left` on, and the height that they take; an entry's first part draws its mark at x and y."""
    parts, x, y = [], left, 10.0
    for draw, name in entries:
        needed = SAMPLE + 6 + LETTER * len(name)
        if x > left and x + needed > width:
            x, y = left, y + ROW
        parts += [draw(x + SAMPLE / 2, y), text(x + SAMPLE + 6, y + 4, name, class_="label")]
        x += needed + GAP
    return join(parts), y + ROW / 2 + 4 if entries else 0.0
