"""A routing as a PNG: one line per user turn, media as blocks, and arcs to the instruction words they attend to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .draw import check_tokens, describe_share, media_colour, turn_colour, visible
from .routing import Routing
from .spans import Span, modality_names, spans_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OTHER_COLOUR = "#EDEDED"
LINE_WIDTH = 112.0  # characters of the monospaced font
LEGEND_WIDTH = 100.0
LINE_HEIGHT, BLOCK_HEIGHT = 3.6, 1.0
FONT_POINTS, INCHES_PER_CHARACTER, INCHES_PER_LINE = 9, 0.084, 0.95
SHOWN_TEXT = 12  # characters at each end of a stretch of text that belongs to no turn
SHOWN_WORDS = (20, 4)  # words at the start and at the end of an instruction
ARC_HEIGHT = 2.0


@dataclass(frozen=True)
class Block:
    """One box of the picture: a media span, an instruction word, or text of no turn. `x`: left edge in characters."""

    label: str
    span: Span
    x: float = 0.0
    line: int = 0

    @property
    def width(self) -> float:
        """In characters, with a margin."""
        return len(self.label) + 1.0

    @property
    def centre(self) -> float:
        """Middle of the box, in characters."""
        return self.x + self.width / 2

    @property
    def top(self) -> float:
        """Upper edge; lines go downwards."""
        return -self.line * LINE_HEIGHT - ARC_HEIGHT


def save_routing_png(routing: Routing, tokens: Sequence[Sequence[str]], path: str | Path, *, row: int = 0) -> None:
    """Draws one row of `routing` to `path`. `tokens`: the text of each token, one list of S strings per row.

    Raises ValueError where `tokens` does not fit the routing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_tokens(routing, tokens)
    blocks = _placed(_blocks(routing, row, tokens[row]))
    lines = max((block.line for block in blocks), default=0) + 1
    width = max([LEGEND_WIDTH, *(block.x + block.width for block in blocks)])
    figure = Figure(figsize=(width * INCHES_PER_CHARACTER, (lines + 0.55) * INCHES_PER_LINE))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    axes.set(xlim=(0, width), ylim=(-lines * LINE_HEIGHT, 0.55 * LINE_HEIGHT))
    axes.set_axis_off()
    _draw_arcs(axes, blocks)
    for block in blocks:
        _draw_block(axes, block)
    _draw_legend(axes, routing, blocks)
    figure.savefig(path, dpi=150, facecolor="white")


def _blocks(routing: Routing, row: int, tokens: Sequence[str]) -> Iterator[Block]:
    names = modality_names(routing)
    for span in spans_of(routing, row):
        if span.is_media:
            yield Block(f"{names[span.modality]} x{span.stop - span.start}", span)
        elif span.is_instruction:
            yield from (Block(word, span) for word in _words(visible(span.text(tokens))))
        else:
            text = visible(span.text(tokens)).strip()
            short = text if len(text) <= 2 * SHOWN_TEXT else f"{text[:SHOWN_TEXT]} ... {text[-SHOWN_TEXT:]}"
            yield from [Block(short, span)] if short else []


def _words(text: str) -> list[str]:
    words, (first, last) = text.split(), SHOWN_WORDS
    hidden = len(words) - first - last
    return words if hidden <= 1 else [*words[:first], f"... {hidden} words ...", *words[-last:]]


def _placed(blocks: Iterator[Block]) -> list[Block]:
    """Sets every block's place; a line is full at its width, and the text that leads to the next turn begins one."""
    waiting, placed = list(blocks), []
    x, line, turn = 0.0, 0, 0
    for index, block in enumerate(waiting):
        upcoming = waiting[index + 1].span.turn if index + 1 < len(waiting) else 0
        leads_on = block.span.turn == 0 and turn > 0 and upcoming > turn
        if x > 0 and (leads_on or x + block.width > LINE_WIDTH):
            x, line = 0.0, line + 1
        placed.append(replace(block, x=x, line=line))
        turn = max(turn, block.span.turn)
        x += block.width + 0.4
    return placed


def _draw_block(axes: Axes, block: Block) -> None:
    from matplotlib.patches import FancyBboxPatch

    span = block.span
    face = media_colour(span.modality) if span.is_media else OTHER_COLOUR
    face = "white" if span.is_instruction else face
    edge = turn_colour(span.turn) if span.turn else face
    width = block.width - 0.3
    box = FancyBboxPatch(
        (block.x + 0.15, block.top - BLOCK_HEIGHT), width, BLOCK_HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.25", facecolor=face, edgecolor=edge, linewidth=1.6,
    )  # fmt: skip
    axes.add_patch(box)
    axes.text(
        block.centre, block.top - BLOCK_HEIGHT / 2, block.label,
        ha="center", va="center", family="monospace", fontsize=FONT_POINTS, parse_math=False,
        color="white" if span.is_media else "black" if span.is_instruction else "#777777",
        weight="bold" if span.is_media else "normal",
    )  # fmt: skip


def _draw_arcs(axes: Axes, blocks: Sequence[Block]) -> None:
    """One arc from each media block to each instruction word of its turn."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Curve

    for media in (block for block in blocks if block.span.is_media and block.span.turn):
        for word in (block for block in blocks if block.span.is_instruction and block.span.turn == media.span.turn):
            curve = Curve(_bend(media, word), [Curve.MOVETO, *[Curve.CURVE4] * 3])
            colour = media_colour(media.span.modality)
            axes.add_patch(PathPatch(curve, fill=False, edgecolor=colour, linewidth=1.0, alpha=0.55))


def _bend(media: Block, word: Block) -> list[tuple[float, float]]:
    """Points of a curve over the line, or down from the media block where the word is on a later line."""
    height = ARC_HEIGHT * min(0.35 + abs(word.centre - media.centre) / LINE_WIDTH, 1.2)
    end, above = (word.centre, word.top), (word.centre, word.top + height)
    if word.line > media.line:
        bottom = media.top - BLOCK_HEIGHT
        return [(media.centre, bottom), (media.centre, bottom - height), above, end]
    return [(media.centre, media.top), (media.centre, media.top + height), above, end]


def _draw_legend(axes: Axes, routing: Routing, blocks: Sequence[Block]) -> None:
    from matplotlib.patches import Patch

    names = modality_names(routing)
    handles = [Patch(facecolor=media_colour(k), label=name) for k, name in enumerate(names[1:], start=1)]
    for turn in sorted({block.span.turn for block in blocks} - {0}):
        handles.append(Patch(facecolor="white", edgecolor=turn_colour(turn), linewidth=1.6, label=f"turn {turn}"))
    handles.append(Patch(facecolor=OTHER_COLOUR, label="other text"))
    axes.text(0.15, 0.42 * LINE_HEIGHT, describe_share(routing), fontsize=FONT_POINTS + 1, va="center")
    axes.legend(
        handles=handles, loc="upper right", ncols=len(handles), frameon=False, fontsize=FONT_POINTS,
        borderaxespad=0.0, handlelength=1.4, columnspacing=1.2,
    )  # fmt: skip
