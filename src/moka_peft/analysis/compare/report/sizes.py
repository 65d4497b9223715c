"""The plot of score against adapter parameters."""

from collections.abc import Sequence

from moka_peft.analysis.compare import formats
from moka_peft.analysis.compare.lines import Line
from moka_peft.analysis.compare.report.labels import Box, place_names
from moka_peft.analysis.compare.report.markup import Markup, join, tag
from moka_peft.analysis.compare.report.svg import Scale, drawing, line, marker, text, widened, x_axis, y_axis

LEAST_RATIO = 1.2  # of the largest number of parameters to the smallest: below it there is nothing to see
LEFT, TOP, BELOW, PLOT = 52.0, 12.0, 46.0, 300.0  # pixels around and of the plot
KEY_ROW = 18.0


def draw_sizes(lines: Sequence[Line], *, width: float, class_: str) -> Markup | None:
    """Mean scores with their standard deviation over the parameters; None where all have about as many.

    Where there is little room, points are numbered and named below.
    """
    shown = [one for one in lines if one.parameters > 0]
    counts = [one.parameters for one in shown]
    if len(shown) < 2 or max(counts) < LEAST_RATIO * min(counts):
        return None
    metric, is_narrow = shown[0].metric, width < 500
    room = (max(counts) / min(counts)) ** 0.08
    across = Scale(min(counts) / room, max(counts) * room, LEFT, width - 12, is_log=True)
    up = Scale(*widened([end for one in shown for end in _ends(one)]), TOP + PLOT, TOP)
    names = [str(place) for place in range(1, len(shown) + 1)] if is_narrow else [one.label for one in shown]
    parts = [
        y_axis(up, LEFT, width - 12, lambda value: formats.tick(value, metric)),
        x_axis(across, TOP, TOP + PLOT, "adapter parameters", formats.count, 5 if is_narrow else 10),
        text(4, TOP + 4, formats.unit(metric), class_="label"),
        *(_mark(one, across, up) for one in shown),
        _names(shown, names, across, up, width),
    ]
    height = TOP + PLOT + BELOW
    if is_narrow:
        parts += [
            text(8, height + KEY_ROW * place, f"{place}  {one.label}") for place, one in enumerate(shown, start=1)
        ]
        height += KEY_ROW * (len(shown) + 0.5)
    return drawing(width, height, parts, alt=_alt(shown), class_=class_)


def _ends(one: Line) -> tuple[float, float]:
    sd = one.score.sd or 0.0
    return one.score.mean - sd, one.score.mean + sd


def _mark(one: Line, across: Scale, up: Scale) -> Markup:
    x, (low, high) = across(one.parameters), _ends(one)
    told = f"{one.label}: {formats.count(one.parameters)} parameters, {formats.spread(one.score, one.metric)}"
    shape = "square" if one.is_baseline else "circle"
    class_ = "mean own" if one.is_baseline else f"mean {one.mood}"
    return join([line(x, up(low), x, up(high), "deviation"), marker(shape, x, up(one.score.mean), class_, told)])


def _names(shown: Sequence[Line], names: Sequence[str], across: Scale, up: Scale, width: float) -> Markup:
    points = [(across(one.parameters), up(one.score.mean)) for one in shown]
    marks = [Box(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    bars = [Box(x - 2, up(_ends(one)[1]), x + 2, up(_ends(one)[0])) for (x, _), one in zip(points, shown, strict=True)]
    room = Box(LEFT, TOP, width - 12, TOP + PLOT)  # fonts differ in how wide they are
    places = place_names(points, names, room, [*marks, *bars])
    return tag("g", *(text(x, y, name, anchor=anchor) for (x, y, anchor), name in zip(places, names, strict=True)))


def _alt(lines: Sequence[Line]) -> str:
    told = "; ".join(
        f"{one.label} {formats.count(one.parameters)}, {formats.spread(one.score, one.metric)}" for one in lines
    )
    return f"Adapter parameters and score of each method: {told}."
