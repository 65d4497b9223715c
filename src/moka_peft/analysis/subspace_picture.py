"""The likeness of the modalities' A matrices as a picture, beside what chance would give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from moka_peft.routing.draw import MEDIA_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = "PuOr_r"  # also for people who see few colours
LEAST_DEVIATIONS = 4.0  # that the colours reach: chance alone gives one cell in twenty more than 2
MOST_TICKS = 9


def draw_subspaces(result: Mapping[str, Any], path: Path) -> None:
    """Draws what `measure_subspaces` found: each pair's mean cosine over the layers beside the level of random
    subspaces, and per layer and projection how many standard deviations lie between the two."""
    cosines = _gather(result["layers"])
    pairs, numbers, projections = cosines.axes
    height = 0.24 * len(projections) + 1.1
    figure = Figure(figsize=(max(7.5, 2.6 * len(pairs) + 2), 3.4 + height), layout="constrained")
    grid = figure.add_gridspec(2, len(pairs), height_ratios=[3.4, height])
    _draw_means(figure.add_subplot(grid[0, :]), cosines)
    maps = [figure.add_subplot(grid[1, column]) for column in range(len(pairs))]
    deviations = (cosines.mean - cosines.level) / np.maximum(cosines.deviation, 1e-6)  # 0 where a space is all
    limit = max(LEAST_DEVIATIONS, float(np.nanmax(np.abs(deviations))))
    norm = Normalize(-limit, limit)
    for axes, pair, each in zip(maps, pairs, deviations, strict=True):
        axes.imshow(each.T, cmap=COLOURS, norm=norm, aspect="auto")
        axes.set_title(" and ".join(pair), fontsize=10)
        axes.set_xlabel("layer", fontsize=9)
        step = -(-len(numbers) // MOST_TICKS)
        axes.set_xticks(range(0, len(numbers), step), [str(number) for number in numbers[::step]], fontsize=8)
        axes.set_yticks([])
    maps[0].set_yticks(range(len(projections)), [name.rpartition(".")[2] for name in projections], fontsize=8)
    figure.colorbar(
        ScalarMappable(norm, COLOURS), ax=maps, label="standard deviations\nfrom random", pad=0.02, aspect=12
    )
    figure.savefig(path, dpi=120)


class _Cosines:
    """Arrays [pairs, layers, projections] of the mean cosine and of the random `level` with its `deviation`; nan where
    a layer lacks the projection."""

    def __init__(self, pairs: list[tuple[str, ...]], numbers: list[int], projections: list[str]) -> None:
        self.axes = pairs, numbers, projections
        shape = tuple(len(axis) for axis in self.axes)
        self.mean, self.level, self.deviation = (np.full(shape, np.nan) for _ in range(3))


def _gather(layers: Sequence[Mapping[str, Any]]) -> _Cosines:
    pairs = list(dict.fromkeys(tuple(each["pair"]) for each in layers))
    numbers = sorted({each["layer"] for each in layers})
    found = _Cosines(pairs, numbers, list(dict.fromkeys(each["projection"] for each in layers)))
    for each in layers:
        where: tuple[Any, ...] = tuple(each["pair"]), each["layer"], each["projection"]
        place = tuple(list(axis).index(value) for axis, value in zip(found.axes, where, strict=True))
        found.mean[place], found.level[place] = each["mean"], each["random_mean"]
        found.deviation[place] = each["random_deviation"]
    return found


def _draw_means(axes: Axes, cosines: _Cosines) -> None:
    pairs, numbers, _ = cosines.axes
    level = np.nanmean(cosines.level[0], 1)
    known = np.isfinite(cosines.deviation[0]).sum(1)
    error = 2 * np.sqrt(np.nansum(cosines.deviation[0] ** 2, 1)) / known  # of a mean over the projections
    axes.fill_between(numbers, level - error, level + error, color="0.4", alpha=0.2, linewidth=0)
    axes.plot(numbers, level, "--", color="0.4", label="random subspaces")
    means = np.nanmean(cosines.mean, 2)
    for place, (pair, mean) in enumerate(zip(pairs, means, strict=True)):
        colour = MEDIA_COLOURS[place % len(MEDIA_COLOURS)]
        axes.plot(numbers, mean, "o-", color=colour, label=" and ".join(pair))
    low, high = min((level - error).min(), means.min()), max((level + error).max(), means.max())
    room = 0.5 * (high - low)
    axes.set(xlabel="layer", ylabel="mean cosine", ylim=(max(low - room, 0), min(high + room, 1.02)))
    axes.set_title("Do the A matrices of two modalities read the same inputs? (1: the same, 0: none)", fontsize=11)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, ncols=2, fontsize=9, loc="upper left")
