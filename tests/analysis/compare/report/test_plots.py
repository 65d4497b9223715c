"""Plots say the numbers they show, in their marks' titles and in their alternative text."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from moka_peft.analysis.compare.lines import summarise
from moka_peft.analysis.compare.report.curves import Places, curves_of, draw_curves, mean_interval
from moka_peft.analysis.compare.report.forest import draw_forest
from moka_peft.analysis.compare.report.sizes import draw_sizes
from moka_peft.analysis.compare.report.strips import draw_strips
from moka_peft.analysis.compare.statistics import Spread

SCORES = {"lora": [0.70, 0.73, 0.71], "moka": [0.80, 0.84, 0.82], "dora <&>": [0.72, 0.70, 0.71]}


@pytest.fixture
def lines(make_table):
    found = summarise(make_table(SCORES))
    return [replace(line, parameters=(place + 1) * 10_000) for place, line in enumerate(found)]


@pytest.fixture
def axis_lines(make_table):
    """Of the method `moka` at three values, and of `lora` without one."""
    (lora, moka, _) = summarise(make_table(SCORES, axis="adapter.cross_scale"))
    values = {0.5: 0.81, 0.0: 0.75, 2.0: 0.79}
    return [
        lora,
        *(replace(moka, value=value, score=Spread(mean, 0.01, 3)) for value, mean in values.items()),
    ]


def numbers(svg, attribute):
    return [float(value) for value in re.findall(rf' {attribute}="([-\d.]+)"', svg)]


@pytest.mark.parametrize("width", [780, 360])
def test_every_plot_is_well_formed_and_stays_inside(lines, axis_lines, width):
    plots = [draw(lines, None, width=width, class_="plot") for draw in (draw_forest, draw_strips)]
    plots += [draw_sizes(lines, width=width, class_="plot")]
    plots += [draw_curves(axis_lines, "adapter.cross_scale", width=width, class_="plot")]
    for plot in plots:
        root = ElementTree.fromstring(plot)
        assert root.get("role") == "img" and root.get("aria-label")
        height = float(root.get("viewBox").split()[3])
        for across, end in (("x", width), ("x1", width), ("x2", width), ("cx", width), ("y", height), ("cy", height)):
            assert all(0 <= value <= end for value in numbers(plot, across)), across


def test_forest_tells_differences(lines):
    plot = draw_forest(lines, None, width=780, class_="wide")
    assert "moka: +10.67, 95 % +9.23 to +12.10 (t), – (bootstrap); better, seeds only" in plot
    assert "dora &lt;&amp;&gt;" in plot and "<&>" not in plot
    assert plot.index(">moka<") < plot.index(">dora")
    assert draw_forest(lines[:1], None, width=780, class_="wide") is None


def test_forest_marks_stand_where_the_numbers_say(lines):
    """Both means on one scale with zero: their distances to it are as their differences."""
    plot = draw_forest(lines[:2], None, width=780, class_="wide")
    zero = float(re.search(r'<line x1="([\d.]+)"[^>]*class="zero"', plot)[1])
    low, high = re.search(r'<line x1="([\d.]+)"[^>]*x2="([\d.]+)"[^>]*class="interval better"', plot).groups()
    mean = numbers(plot, "cx")[0]
    assert (mean - zero) / (float(high) - zero) == pytest.approx(10.667 / 12.101, abs=0.002)
    assert (float(low) - zero) / (mean - zero) == pytest.approx(9.232 / 10.667, abs=0.002)


def test_an_endless_interval_is_cut_with_an_arrow(make_table):
    table = make_table({"lora": [0.5, 0.5], "moka": [0.52, 0.60], "dora": [0.51, 0.52]})
    plot = draw_forest(summarise(table), None, width=780, class_="wide")
    assert "moka: +6.00, 95 % −44.82 to +56.82 (t)" in plot
    whole = draw_forest(summarise(make_table(SCORES)), None, width=780, class_="wide")
    assert (
        plot.count('class="interval unclear"') == 1 + 2 + 4
    )  # in the legend, of both methods, an arrow head at each end of one
    assert whole.count('class="interval') == 1 + 2


def test_strips_show_every_seed(lines):
    plot = draw_strips(lines, None, width=780, class_="wide")
    assert all(f"moka, seed {seed}: {score}" in plot for seed, score in enumerate(("80.00", "84.00", "82.00")))
    assert plot.count("<circle") == 1 + 9
    assert 'class="zero"' in plot


def test_sizes_need_different_sizes(lines):
    assert "moka: 20 k parameters, 82.00 ± 2.00" in draw_sizes(lines, width=780, class_="wide")
    equal = [replace(line, parameters=10_000) for line in lines]
    assert draw_sizes(equal, width=780, class_="wide") is None


def test_sizes_number_points_where_there_is_little_room(lines):
    narrow, wide = (draw_sizes(lines, width=width, class_="plot") for width in (360, 780))
    assert ">2  moka</text>" in narrow and ">moka</text>" in wide


def test_curves_join_a_method_in_the_order_of_its_values(axis_lines):
    assert list(curves_of(axis_lines)) == ["lora", "moka"]
    plot = draw_curves(axis_lines, "adapter.cross_scale", width=780, class_="wide")
    points = [point.split(",") for point in re.search(r'<polyline points="([^"]+)"', plot)[1].split()]
    across, up = ([float(point[place]) for point in points] for place in (0, 1))
    assert across == sorted(across)
    assert (across[1] - across[0]) / (across[2] - across[0]) == pytest.approx(0.25, abs=0.002)
    assert up[1] < up[2] < up[0]  # 0.81 above 0.79 above 0.75
    assert plot.count('class="band') == 1


def test_values_in_words_are_not_joined(axis_lines):
    words = [replace(line, value=f"v{line.value}") for line in axis_lines[1:]]
    plot = draw_curves(words, "adapter.interaction", width=780, class_="wide")
    assert "<polyline" not in plot and plot.count("<polygon") + plot.count("<circle") >= 3


def test_ranks_stand_in_even_steps():
    places = Places((2, 4, 8, 16, 32), 0.0, 100.0)
    assert [places(value) for value in places.values] == pytest.approx([0, 25, 50, 75, 100])
    assert Places((True, False), 0.0, 100.0)(False) == 75.0


def test_interval_of_a_mean():
    """t of 0.975 at two degrees of freedom is 4.3027."""
    assert mean_interval(Spread(0.5, 0.1, 3)) == pytest.approx((0.5 - 0.2484, 0.5 + 0.2484), abs=1e-4)
    assert mean_interval(Spread(0.5, None, 1)) is None
