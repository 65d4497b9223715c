"""The strip plot: every run's score as a dot, a line of dots per method, a tick at their mean."""

from collections.abc import Sequence

from moka_peft.analysis.compare import formats
from moka_peft.analysis.compare.lines import Line
from moka_peft.analysis.compare.report.legend import Entry, draw_legend
from moka_peft.analysis.compare.report.markup import Markup, join
from moka_peft.analysis.compare.report.rows import Frame, best_first
from moka_peft.analysis.compare.report.svg import Scale, drawing, line, marker, widened, x_axis

SPREAD = 5.0  # pixels that dots are moved up and down at most, so that equal scores can be told apart


def draw_strips(lines: Sequence[Line], axis: str | None, *, width: float, class_: str) -> Markup:
    """The scores of all seeds."""
    shown = best_first(lines, axis, lambda one: one.score.mean)
    metric = shown[0].metric
    legend, top = draw_legend(_samples(), 4, width)
    frame = Frame(width, top, [one.label for one in shown], [formats.spread(one.score, metric) for one in shown])
    scores = [run.score for one in shown for run in one.results.values()]
    scale = Scale(*widened(scores), frame.left, frame.right)
    unit = f"score, {formats.unit(metric)}"
    most = 4 if width < 500 else 8
    parts = [
        legend,
        x_axis(scale, frame.top, frame.bottom, unit, lambda value: formats.tick(value, metric), most),
        _baseline(shown, scale, frame),
        frame.draw_names(),
        *(_row(one, scale, frame.middle(place)) for place, one in enumerate(shown)),
    ]
    return drawing(width, frame.height, parts, alt=_alt(shown), class_=class_)


def _samples() -> list[Entry]:
    return [
        (lambda x, y: marker("circle", x, y, "dot", radius=4), "one seed"),
        (lambda x, y: line(x, y - 7, x, y + 7, "tick-mean"), "mean"),
    ]


def _baseline(lines: Sequence[Line], scale: Scale, frame: Frame) -> Markup | None:
    """A line at the mean of the baseline, where there is one."""
    means = [scale(one.score.mean) for one in lines if one.is_baseline]
    return line(means[0], frame.top, means[0], frame.bottom, "zero") if len(means) == 1 else None


def _row(one: Line, scale: Scale, y: float) -> Markup:
    runs = sorted(one.results.items())
    step = 2 * SPREAD / max(len(runs) - 1, 1)
    dots = [
        marker(
            "circle",
            scale(run.score),
            y + (SPREAD - step * place if len(runs) > 1 else 0),
            "dot own" if one.is_baseline else "dot",
            f"{one.label}, seed {seed}: {formats.score(run.score, one.metric)}",
            radius=4,
        )
        for place, (seed, run) in enumerate(runs)
    ]
    mean = scale(one.score.mean)
    return join([*dots, line(mean, y - 9, mean, y + 9, "tick-mean")])


def _alt(lines: Sequence[Line]) -> str:
    told = "; ".join(f"{one.label} {formats.spread(one.score, one.metric)}" for one in lines)
    return f"Scores of all seeds, mean and standard deviation: {told}."
