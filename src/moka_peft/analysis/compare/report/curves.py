"""The plot along an axis: each method's mean score at every value, with its interval over seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from moka_peft.analysis.compare import formats
from moka_peft.analysis.compare.lines import Line
from moka_peft.analysis.compare.report.legend import draw_legend
from moka_peft.analysis.compare.report.markup import Markup, join, tag
from moka_peft.analysis.compare.report.svg import SHAPES, Scale, drawing, line, marker, text, widened, y_axis
from moka_peft.analysis.compare.statistics import Interval, Spread

LEFT, RIGHT, BELOW, PLOT = 52.0, 20.0, 46.0, 300.0  # pixels around and of the plot
APART = 5.0  # pixels between the points of two methods at one value
COLOURS = 6  # of curves; the shapes of their marks repeat after 4, so that 12 curves are told apart


@dataclass(frozen=True)
class Places:
    """Where the axis' values stand: in scale where all are numbers, else one after the other."""

    values: tuple
    start: float
    end: float

    @property
    def are_numbers(self) -> bool:
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)

    def __call__(self, value: object) -> float:
        if self.are_numbers and len(self.values) > 1:
            low, high = self.values[0], self.values[-1]
            is_log = low > 0 and high >= 8 * low
            return Scale(low, high, self.start, self.end, is_log)(value)  # pyright: ignore[reportArgumentType]
        return self.start + (self.end - self.start) * (self.values.index(value) + 0.5) / len(self.values)


def draw_curves(lines: Sequence[Line], axis: str, *, width: float, class_: str) -> Markup | None:
    """A curve per method; a method without a value on the axis is a level line. None without any value."""
    found = list({repr(one.value): one.value for one in lines if one.value is not None}.values())
    if not found:
        return None
    metric = lines[0].metric
    curves = curves_of(lines)
    entries = [(_sample(place, own), name) for place, (name, own) in enumerate(curves.items())]
    legend, top = draw_legend(entries, LEFT, width)
    ends = [end for one in lines for end in (one.score.mean, *(mean_interval(one.score) or ()))]
    up = Scale(*widened(ends), top + 8 + PLOT, top + 8)
    across = Places(_in_order(found), LEFT + 24, width - RIGHT - 24)
    parts = [
        legend,
        y_axis(up, LEFT, width - RIGHT, lambda value: formats.tick(value, metric)),
        _values(across, up.start, axis),
        *(_curve(place, len(curves), own, across, up, width) for place, own in enumerate(curves.values())),
        text(4, top + 4, formats.unit(metric), class_="label"),
    ]
    return drawing(width, up.start + BELOW, parts, alt=_alt(lines, axis), class_=class_)


def curves_of(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """Name of a method -> its lines."""
    curves: dict[str, list[Line]] = {}
    for one in lines:
        curves.setdefault(one.method, []).append(one)
    return curves


def mean_interval(score: Spread) -> Interval | None:
    """The 95 % interval of a mean over seeds by Student's t; None of one seed."""
    if score.sd is None:
        return None
    half = float(stdtrit(score.count - 1, 0.975)) * score.sd / score.count**0.5
    return score.mean - half, score.mean + half


def _in_order(values: Sequence) -> tuple:
    is_sortable = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return tuple(sorted(values)) if is_sortable else tuple(values)


def _values(across: Places, bottom: float, axis: str) -> Markup:
    parts, last = [], -100.0
    for value in across.values:
        x, words = across(value), str(value)
        parts.append(line(x, bottom, x, bottom + 4, "axis"))
        if x - last > 7 * len(words):
            parts.append(text(x, bottom + 17, words, anchor="middle", class_="tick"))
            last = x
    middle = (across.start + across.end) / 2
    return join([*parts, text(middle, bottom + 37, axis, anchor="middle", class_="label")])


def _sample(place: int, own: Sequence[Line]) -> Callable[[float, float], Markup]:
    hue, shape = _look(place)
    if _is_level(own):
        return lambda x, y: line(x - 12, y, x + 12, y, f"curve level {hue}")
    return lambda x, y: join([line(x - 12, y, x + 12, y, f"curve {hue}"), marker(shape, x, y, f"point {hue}")])


def _look(place: int) -> tuple[str, str]:
    """Class and shape of a curve's marks."""
    return f"hue{place % COLOURS}", SHAPES[place % len(SHAPES)]


def _is_level(own: Sequence[Line]) -> bool:
    return all(one.value is None for one in own)


def _curve(place: int, count: int, own: Sequence[Line], across: Places, up: Scale, width: float) -> Markup:
    hue, shape = _look(place)
    if _is_level(own):
        return _level(own[0], hue, up, width)
    shift = APART * (place - (count - 1) / 2)
    order = sorted((one for one in own if one.value is not None), key=lambda one: across(one.value))
    points = [(across(one.value) + shift, up(one.score.mean)) for one in order]
    path = tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=f"curve {hue}")
    marks = []
    for one, (x, y) in zip(order, points, strict=True):
        if (ends := mean_interval(one.score)) is not None:
            marks.append(line(x, up(ends[0]), x, up(ends[1]), f"error {hue}"))
        told = f"{one.label}: {formats.spread(one.score, one.metric)}, {one.verdict}"
        marks.append(marker(shape, x, y, f"point {hue}", told))
    return tag("g", path if across.are_numbers else None, *marks)


def _level(one: Line, hue: str, up: Scale, width: float) -> Markup:
    ends = mean_interval(one.score) or (one.score.mean, one.score.mean)
    band = tag(
        "rect",
        x=LEFT,
        y=up(ends[1]),
        width=width - RIGHT - LEFT,
        height=up(ends[0]) - up(ends[1]),
        class_=f"band {hue}",
    )
    told = tag("title", f"{one.label}: {formats.spread(one.score, one.metric)}")
    level = line(LEFT, up(one.score.mean), width - RIGHT, up(one.score.mean), f"curve level {hue}")
    return tag("g", told, band, level)


def _alt(lines: Sequence[Line], axis: str) -> str:
    told = "; ".join(f"{one.label} {formats.spread(one.score, one.metric)}" for one in lines)
    return f"Scores along {axis}: {told}."
