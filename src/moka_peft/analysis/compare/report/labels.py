"""Finds places for the names of points in a plot, so that they lie neither on each other nor on a point."""

from collections.abc import Sequence
from typing import NamedTuple

from moka_peft.analysis.compare.report.svg import LETTER

HEIGHT = 13.0  # pixels of a line of text


class Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "Box") -> float:
        """The area that both cover."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(wide, 0.0) * max(high, 0.0)

    def outside(self, frame: "Box") -> float:
        """The area beyond `frame`."""
        return (self.right - self.left) * (self.bottom - self.top) - self.overlap(frame)


def place_names(
    points: Sequence[tuple[float, float]], names: Sequence[str], frame: Box, taken: Sequence[Box]
) -> list[tuple[float, float, str]]:
    """x, y and anchor of every name: of the places around its point the one with the least overlap, near ones first.

    taken: what must not be covered, such as the marks themselves.
    """
    boxes = list(taken)
    found = []
    for (x, y), name in zip(points, names, strict=True):
        places = [_place(x, y, dx, dy, LETTER * len(name)) for dx, dy in _offsets()]
        costs = [
            sum(box.overlap(other) for other in boxes) + 10 * box.outside(frame) + 2 * step
            for step, (_, box) in enumerate(places)
        ]
        best, box = places[costs.index(min(costs))]
        found.append(best)
        boxes.append(box)
    return found


def _offsets() -> list[tuple[int, float]]:
    """Side (right, left, middle) and height of the places around a point."""
    heights = (0, -9, 9, -16, 16, -24, 24, -34, 34)
    beside = [(side, float(height)) for height in heights for side in (1, -1)]
    return sorted([*beside, (0, -14.0), (0, 14.0), (0, -26.0), (0, 26.0)], key=lambda place: abs(place[1]))


def _place(x: float, y: float, side: int, height: float, width: float) -> tuple[tuple[float, float, str], Box]:
    middle = y + height
    x += 9 * side
    left = {1: x, -1: x - width, 0: x - width / 2}[side]
    anchor = {1: "start", -1: "end", 0: "middle"}[side]
    return (x, middle + 4, anchor), Box(left, middle - HEIGHT / 2, left + width, middle + HEIGHT / 2)
