"""The frame of a plot with a line per method: names at the left, or above where there is little room."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moka_peft.analysis.compare.lines import Line
from moka_peft.analysis.compare.report.markup import Markup, join
from moka_peft.analysis.compare.report.svg import LETTER, line, text
from moka_peft.training.metrics import LOWER_IS_BETTER

WIDE, NARROW = 780, 360  # pixels of a plot on a desk's screen or on paper, and on a phone's
BELOW = 42  # pixels for the values and the name of the axis


@dataclass(frozen=True)
class Frame:
    """Where things stand. names, values: one of each per row, written at the left and at the right of its marks."""

    width: float
    top: float
    names: Sequence[str]
    values: Sequence[str]

    @property
    def is_narrow(self) -> bool:
        """Whether names and values leave too little room for the marks between them."""
        return LETTER * (max(map(len, self.names)) + max(map(len, self.values))) > 0.5 * self.width

    @property
    def row_height(self) -> float:
        return 44.0 if self.is_narrow else 26.0

    @property
    def left(self) -> float:
        return 18.0 if self.is_narrow else 16 + LETTER * max(map(len, self.names))

    @property
    def right(self) -> float:
        return self.width - (18.0 if self.is_narrow else 16 + LETTER * max(map(len, self.values)))

    @property
    def bottom(self) -> float:
        return self.top + self.row_height * len(self.names)

    @property
    def height(self) -> float:
        return self.bottom + BELOW

    def middle(self, row: int) -> float:
        """The height of a row's marks."""
        return self.top + self.row_height * row + (30.0 if self.is_narrow else self.row_height / 2)

    def draw_names(self) -> Markup:
        """Names and values of all rows, and thin lines between the rows."""
        parts = []
        for row, (name, value) in enumerate(zip(self.names, self.values, strict=True)):
            y = self.middle(row) + (-13 if self.is_narrow else 4)
            x, anchor = (4.0, "start") if self.is_narrow else (self.left - 12, "end")
            parts += [text(x, y, name, anchor=anchor, class_="name")]
            parts += [text(self.width - 4, y, value, anchor="end", class_="value")]
            if row:
                edge = self.top + self.row_height * row
                parts.append(line(0, edge, self.width, edge, "rule"))
        return join(parts)


def best_first(lines: Sequence[Line], axis: str | None, key: Callable[[Line], float]) -> list[Line]:
    """Lines of methods by `key`, a score or a difference; lines along an axis as they are."""
    if axis is not None or not lines:
        return list(lines)
    return sorted(lines, key=key, reverse=lines[0].metric not in LOWER_IS_BETTER)
