"""What the plots are made of: marks, text, scales and axes, as SVG that takes its colours from the page's style."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from moka_peft.analysis.compare.report.markup import Markup, join, tag

LETTER = 6.4  # mean width of a letter of the plots' font
LOG_STEPS = ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 4, 5, 6, 8))
SHAPES = ("circle", "square", "triangle", "diamond")


@dataclass(frozen=True)
class Scale:
    """Maps data to pixels: `low` to `start`, `high` to `end`, evenly or by the logarithm."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(one) if self.is_log else one for one in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def clipped(self, value: float) -> float:
        return self(min(max(value, self.low), self.high))

    def ticks(self, most: int = 6) -> list[float]:
        """Round values inside, `most` at most."""
        if self.is_log:
            found = [self._powers(steps) for steps in LOG_STEPS]
            return max((ticks for ticks in found if len(ticks) <= most), key=len, default=found[0])
        step = round_step((self.high - self.low) / most)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(index * step, 12) for index in range(first, last + 1)]

    def _powers(self, steps: Sequence[int]) -> list[float]:
        """The values inside that are one of `steps` times a power of ten."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        values = [step * 10.0**power for power in powers for step in steps]
        return [value for value in values if self.low <= value <= self.high]


def round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least * (1 - 1e-9))


def widened(values: Iterable[float], share: float = 0.05) -> tuple[float, float]:
    """The least and largest of `values` with room at both ends; some room around a single value."""
    values = list(values)
    low, high = min(values), max(values)
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room


def text(x: float, y: float, words: object, *, anchor: str = "start", class_: str | None = None) -> Markup:
    return tag("text", words, x=float(x), y=float(y), text_anchor=None if anchor == "start" else anchor, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return tag("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def marker(shape: str, x: float, y: float, class_: str, told: str = "", radius: float = 4.5) -> Markup:
    """A mark at a point; `told` is shown where a pointer rests on it."""
    title = tag("title", told) if told else None
    if shape == "circle":
        return tag("circle", title, cx=float(x), cy=float(y), r=radius, class_=class_)
    corners = {
        "square": ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
        "triangle": ((0, -1.15), (1.1, 0.8), (-1.1, 0.8)),
        "diamond": ((0, -1.25), (1.15, 0), (0, 1.25), (-1.15, 0)),
    }[shape]
    points = " ".join(f"{x + radius * dx:.1f},{y + radius * dy:.1f}" for dx, dy in corners)
    return tag("polygon", title, points=points, class_=class_)


def x_axis(scale: Scale, top: float, bottom: float, label: str, shown: Callable[[float], str], most: int) -> Markup:
    """Grid lines with their values below, and what they are values of."""
    parts = []
    for value in scale.ticks(most):
        parts += [line(scale(value), top, scale(value), bottom, "grid")]
        parts += [text(scale(value), bottom + 15, shown(value), anchor="middle", class_="tick")]
    parts.append(text((scale.start + scale.end) / 2, bottom + 33, label, anchor="middle", class_="label"))
    return join(parts)


def y_axis(scale: Scale, left: float, right: float, shown: Callable[[float], str], most: int = 6) -> Markup:
    """Grid lines with their values at the left."""
    parts = []
    for value in scale.ticks(most):
        parts += [line(left, scale(value), right, scale(value), "grid")]
        parts += [text(left - 6, scale(value) + 4, shown(value), anchor="end", class_="tick")]
    return join(parts)


def drawing(width: float, height: float, children: Sequence[object], *, alt: str, class_: str) -> Markup:
    """A plot; `alt` is read in place of it."""
    box = f"0 0 {width:g} {height:g}"
    return tag("svg", *children, viewBox=box, role="img", aria_label=alt, class_=class_)
