"""The attention inside an adapter as a picture: heat maps over the words of the instruction."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from moka_peft.analysis.attention_panels import (
    Panel,
    PatchMap,
    layers_of,
    least_even,
    panels_of,
    patch_maps,
    projections_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = "PuOr_r"  # also for people who see few colours; white is an even spread
LIMITS = (0.25, 0.5, 1.0, 2.0, 3.0)  # of the colours, as powers of two
INCHES_PER_WORD, INCHES_PER_ROW, MOST_ROWS_INCHES, WORDS_INCHES = 0.3, 0.22, 4.0, 1.15
DIRECTIONS = {
    "cross_attention": "What media attend to in",
    "mean": "What media get, all words alike, of",
    "text_query": "Which media tokens are attended to by",
}


def draw_attention(result: Mapping[str, Any], path: Path, *, layer: int | None = None) -> None:
    """Draws what `measure_attention` found: all layers; one layer's projections and its single tokens; and, for images
    whose tokens are patches, how patches differ in their attention to some words.

    layer: the one layer's number; None: the one whose attention is least even. Raises ValueError where there is none.
    """
    numbers, projections = layers_of(result), projections_of(result)
    if layer is not None and layer not in numbers:
        raise ValueError(f"`layer` has no adapter: expected one of {numbers}, got {layer}. Choose another one.")
    layer = least_even(result) if layer is None else layer
    panels, maps = panels_of(result), patch_maps(result, layer)
    norm = _norm([panel.by_layer for panel in panels] + [panel.by_token(numbers.index(layer)) for panel in panels])
    figure, axes, places = _lay_out(panels, maps, len(numbers), len(projections))
    for column, panel in zip(axes.T, panels, strict=True):
        _draw_panel(column, panel, numbers, projections, layer, norm)
    for place, patch_map in zip(places, [None, *maps], strict=False):
        _draw_map(place, maps[0].png, patch_map, layer, norm)
    _explain(figure, result, norm, list(axes.flat))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # a box stands for it
        figure.savefig(path, dpi=120)


def _norm(shares: Sequence[np.ndarray]) -> Normalize:
    """Colours that reach as far as nine in ten values."""
    values = np.concatenate([np.abs(_log2(share)).ravel() for share in shares])
    reach = float(np.quantile(values, 0.9))
    limit = next((limit for limit in LIMITS if limit >= reach), LIMITS[-1])
    return Normalize(-limit, limit)


def _log2(share: np.ndarray) -> np.ndarray:
    return np.log2(np.maximum(share, 1e-6))


def _lay_out(panels: Sequence[Panel], maps: Sequence[PatchMap], layers: int, projections: int) -> Any:
    """The figure, its heat maps [3, panels], and its places for maps of patches."""
    keys = [panel.share.shape[2] if panel.text_asks else len(panel.words) for panel in panels]
    widths = [min(max(INCHES_PER_WORD * count, 2.4), 10.0) for count in keys]
    labels = 0.25 if panels[0].text_asks else WORDS_INCHES
    attending = max(len(panel.words) * INCHES_PER_ROW if panel.text_asks else 2.2 for panel in panels)
    heights = [min(INCHES_PER_ROW * count, MOST_ROWS_INCHES) + labels + 0.5 for count in (layers, projections)]
    heights += [attending + labels + 0.5] + ([1.5] if maps else [])
    figure = Figure(figsize=(sum(widths) + 0.9 * len(panels) + 2.2, sum(heights) + 0.8), layout="constrained")
    grid = figure.add_gridspec(len(heights), len(panels), height_ratios=heights, width_ratios=widths)
    axes = np.array([[figure.add_subplot(grid[row, column]) for column in range(len(panels))] for row in range(3)])
    if not maps:
        return figure, axes, []
    places = grid[3, :].subgridspec(1, len(maps) + 1)
    return figure, axes, [figure.add_subplot(places[0, place]) for place in range(len(maps) + 1)]


def _draw_panel(
    column: np.ndarray, panel: Panel, numbers: Sequence[int], projections: Sequence[str], layer: int, norm: Normalize
) -> None:
    place = numbers.index(layer)
    _heat(column[0], panel.by_layer, panel, norm)
    column[0].set_title(f"{panel.title}\nall layers", fontsize=10, parse_math=False)
    _name_rows(column[0], numbers)
    column[0].set_ylabel("layer", fontsize=9)
    _heat(column[1], panel.by_projection[place], panel, norm)
    column[1].set_title(f"layer {layer} by projection", fontsize=10)
    _name_rows(column[1], [name.rpartition(".")[2] for name in projections])
    _heat(column[2], panel.by_token(place), panel, norm)
    column[2].set_title(f"layer {layer} by token", fontsize=10)
    if panel.text_asks:
        _name_rows(column[2], panel.words)
    else:
        column[2].set_ylabel("token", fontsize=9)
        column[2].tick_params(labelsize=8)


def _heat(axes: Axes, share: np.ndarray, panel: Panel, norm: Normalize) -> None:
    axes.imshow(_log2(share), cmap=COLOURS, norm=norm, aspect="auto", interpolation="nearest")
    if panel.text_asks:
        axes.set_xlabel("token", fontsize=9)
        axes.tick_params(labelsize=8)
    else:
        axes.set_xticks(range(len(panel.words)))
        axes.set_xticklabels(panel.words, rotation=55, ha="right", rotation_mode="anchor", fontsize=9, parse_math=False)


def _name_rows(axes: Axes, names: Sequence[Any]) -> None:
    step = -(-len(names) // 24)  # as many as can be read
    axes.set_yticks(range(0, len(names), step))
    axes.set_yticklabels([str(name) for name in names[::step]], fontsize=8, parse_math=False)


def _draw_map(axes: Axes, png: str, patch_map: PatchMap | None, layer: int, norm: Normalize) -> None:
    """The image; with a map, its patches' attention over it."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("L")
    extent = (0, image.width, image.height, 0)
    axes.imshow(np.asarray(image), cmap="gray", extent=extent)
    axes.set_title("the image", fontsize=9)
    if patch_map is not None:
        share = _log2(patch_map.share)
        axes.imshow(share, cmap=COLOURS, norm=norm, alpha=0.8, extent=extent, interpolation="nearest")
        axes.set_title(f"layer {layer}, patches on “{patch_map.word}”", fontsize=9, parse_math=False)
    axes.set_axis_off()


def _explain(figure: Figure, result: Mapping[str, Any], norm: Normalize, axes: Sequence[Axes]) -> None:
    """The title, the scale of colours, and what falls on positions that are no instruction."""
    from matplotlib.cm import ScalarMappable

    limit = float(norm.vmax or 1)
    bar = figure.colorbar(ScalarMappable(norm, COLOURS), ax=axes, fraction=0.05, shrink=0.5, aspect=25, pad=0.02)
    ticks = [-limit, -limit / 2, 0, limit / 2, limit]
    bar.set_ticks(ticks, labels=[f"{2**tick:.2g}x" for tick in ticks])
    bar.set_label("attention, times an even spread", fontsize=9)
    entropies = [value for each in result["layers"] for value in each["entropy"].values()]
    outside = [value for each in result["layers"] for value in each["on_zero_keys"].values()]
    told = f"mean entropy {np.mean(entropies):.2f} of an even spread's"
    if np.mean(outside) > 0:
        told += f"; {np.mean(outside):.0%} of the attention falls on zeros between instruction tokens"
    question = re.sub(r" ([?.!,;:])", r"\1", " ".join(word["text"] for word in result["words"]))
    question = shorten(question, 90, placeholder=" ...")
    title = f"{DIRECTIONS[result['interaction']]} “{question}”\n{told}"
    figure.suptitle(title, fontsize=12, parse_math=False)
