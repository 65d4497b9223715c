"""The forest plot: every method's difference to its baseline, with both intervals."""

from collections.abc import Callable, Sequence

from moka_peft.analysis.compare import formats
from moka_peft.analysis.compare.columns import against
from moka_peft.analysis.compare.lines import Line
from moka_peft.analysis.compare.report.legend import Entry, draw_legend
from moka_peft.analysis.compare.report.markup import Markup, join
from moka_peft.analysis.compare.report.rows import Frame, best_first
from moka_peft.analysis.compare.report.svg import Scale, drawing, line, marker, widened, x_axis
from moka_peft.analysis.compare.statistics import Difference, Interval

APART = 4.0  # pixels between the lines of the two intervals
LEGEND = {"t": "t, over seeds", "bootstrap": "bootstrap, over seeds and questions"}


def draw_forest(lines: Sequence[Line], axis: str | None, *, width: float, class_: str) -> Markup | None:
    """The differences over one line at zero; None where nothing is compared."""
    compared = [one for one in lines if one.difference]
    shown = best_first(compared, axis, lambda one: one.difference.mean if one.difference else 0.0)
    if not shown:
        return None
    metric = shown[0].metric
    legend, top = draw_legend(_samples(), 4, width)
    frame = Frame(width, top, [one.label for one in shown], [_value(one) for one in shown])
    scale = Scale(*_limits([one.difference for one in shown if one.difference]), frame.left, frame.right)
    parts = [
        legend,
        x_axis(scale, frame.top, frame.bottom, _axis_name(shown), _tick(metric), 4 if width < 500 else 8),
        line(scale(0), frame.top, scale(0), frame.bottom, "zero"),
        frame.draw_names(),
        *(_row(one, scale, frame.middle(place)) for place, one in enumerate(shown)),
    ]
    return drawing(width, frame.height, parts, alt=_alt(shown), class_=class_)


def _samples() -> list[Entry]:
    return [
        (lambda x, y: line(x - 12, y, x + 12, y, "interval unclear"), LEGEND["t"]),
        (lambda x, y: line(x - 12, y, x + 12, y, "bootstrap unclear"), LEGEND["bootstrap"]),
    ]


def _tick(metric: str) -> Callable[[float], str]:
    return lambda value: formats.tick(value, metric, sign=True)


def _axis_name(lines: Sequence[Line]) -> str:
    return f"difference to {against(lines)}, {formats.difference_unit(lines[0].metric)}"


def _value(one: Line) -> str:
    mean = formats.score(one.difference.mean, one.metric, sign=True) if one.difference else formats.NONE
    return f"{mean} {one.verdict}"


def _limits(differences: Sequence[Difference]) -> Interval:
    """Room for zero, all means and intervals; an interval over two or three seeds may be too long for that."""
    core = [0.0, *(one.mean for one in differences)]
    core += [end for one in differences if one.bootstrap for end in one.bootstrap]
    low, high = min(core), max(core)
    room = high - low or 1.0
    ends = [end for one in differences if one.interval for end in one.interval]
    return widened([*core, *(min(max(end, low - room), high + room) for end in ends)])


def _row(one: Line, scale: Scale, y: float) -> Markup:
    difference, mood = one.difference, one.mood
    if difference is None:
        return Markup()
    parts = [
        _bar(interval, scale, place, f"{name} {mood}")
        for name, interval, place in (
            ("interval", difference.interval, y - APART / 2),
            ("bootstrap", difference.bootstrap, y + APART),
        )
        if interval
    ]
    ends = f"{formats.interval(difference.interval, one.metric)} (t), "
    ends += f"{formats.interval(difference.bootstrap, one.metric)} (bootstrap)"
    told = f"{one.label}: {formats.score(difference.mean, one.metric, sign=True)}, 95 % {ends}; {one.verdict}"
    return join([*parts, marker("circle", scale.clipped(difference.mean), y - APART / 2, f"mean {mood}", told)])


def _bar(interval: Interval, scale: Scale, y: float, class_: str) -> Markup:
    """An interval; an arrow head where it goes on outside of the plot."""
    low, high = (scale.clipped(end) for end in interval)
    heads = [
        line(x, y, x + step, y + rise, class_)
        for end, x, step in ((interval[0], low, 5), (interval[1], high, -5))
        if not scale.low <= end <= scale.high
        for rise in (-4, 4)
    ]
    return join([line(low, y, high, y, class_), *heads])


def _alt(lines: Sequence[Line]) -> str:
    told = "; ".join(
        f"{one.label} {formats.score(one.difference.mean, one.metric, sign=True)}, {one.verdict}"
        for one in lines
        if one.difference
    )
    return f"Forest plot of differences to {against(lines)}: {told}."
