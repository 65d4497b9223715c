import pytest

from moka_peft.analysis.compare.report.labels import Box, place_names
from moka_peft.analysis.compare.report.legend import draw_legend
from moka_peft.analysis.compare.report.svg import Scale, line, round_step, widened


@pytest.mark.parametrize(("least", "step"), [(0.3, 0.5), (0.011, 0.02), (1.0, 1.0), (7.0, 10.0), (0.05, 0.05)])
def test_round_step(least, step):
    assert round_step(least) == pytest.approx(step)


def test_scale_maps_ends_and_clips():
    scale = Scale(-1.0, 3.0, 10.0, 50.0)
    assert [scale(-1.0), scale(0.0), scale(3.0)] == [10.0, 20.0, 50.0]
    assert scale.clipped(99.0) == 50.0
    assert Scale(1.0, 100.0, 0.0, 10.0, is_log=True)(10.0) == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("low", "high", "most", "ticks"),
    [(-0.021, 0.083, 6, [-0.02, 0.0, 0.02, 0.04, 0.06, 0.08]), (0.701, 0.858, 4, [0.75, 0.8, 0.85])],
)
def test_ticks_are_round(low, high, most, ticks):
    assert Scale(low, high, 0, 1).ticks(most) == pytest.approx(ticks)


@pytest.mark.parametrize(("low", "high"), [(30e3, 120e3), (1e3, 9e6), (9e3, 2e5), (41e3, 44e3)])
def test_ticks_of_a_logarithm_fit(low, high):
    ticks = Scale(low, high, 0, 1, is_log=True).ticks(8)
    assert len(ticks) <= 8 and all(low <= tick <= high for tick in ticks)
    assert len(ticks) >= 3 or high / low < 1.2


def test_room_around_values():
    assert widened([0.0, 1.0], 0.1) == (-0.1, 1.1)
    low, high = widened([0.0])
    assert low < 0 < high


def test_names_lie_neither_on_each_other_nor_on_points():
    points = [(100.0, 100.0), (100.0, 104.0), (100.0, 96.0), (104.0, 100.0), (190.0, 100.0)]
    names = ["MokA", "LoRA", "IMoD", "HydraLoRA", "Uni-modal LoRA"]
    frame = Box(0, 0, 200, 200)
    marks = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    boxes = []
    for (x, y, anchor), name in zip(place_names(points, names, frame, marks), names, strict=True):
        width = 6.4 * len(name)
        left = {"start": x, "end": x - width, "middle": x - width / 2}[anchor]
        boxes.append(Box(left, y - 4 - 6.5, left + width, y - 4 + 6.5))
    assert all(box.outside(frame) == pytest.approx(0) for box in boxes)
    for place, box in enumerate(boxes):
        assert all(box.overlap(other) == 0 for other in [*boxes[:place], *marks])


def test_legend_takes_as_many_rows_as_it_needs():
    entries = [(lambda x, y: line(x, y, x, y, "mark"), name) for name in ("LoRA", "Uni-modal LoRA", "MokA")]
    assert draw_legend([], 0, 300) == ("", 0.0)
    one, two = draw_legend(entries, 0, 600)[1], draw_legend(entries, 0, 200)[1]
    assert two - one == 20
