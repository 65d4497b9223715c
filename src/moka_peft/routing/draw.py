"""A routing in the terminal: tokens coloured by modality and turn, and what each media span attends to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .routing import Routing
from .spans import Span, count_media, keys_of, modality_names, spans_of

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

# Okabe and Ito's colours, which people who see few colours can also tell apart.
MEDIA_COLOURS = ("#0072B2", "#D55E00", "#CC79A7", "#E69F00", "#009E73", "#56B4E9", "#999999")
TURN_COLOURS = ("#009E73", "#E69F00", "#CC79A7", "#56B4E9")
SHOWN_KEYS = 100  # characters of the instruction under a media span


def draw_routing(routing: Routing, tokens: Sequence[Sequence[str]]) -> Group:
    """A rich renderable of every row. `tokens`: the text of each token, one list of S strings per row.

    Media runs are one block ("visual x32") with the instruction they attend to below; instruction is in the colour
    of its turn; all other text is dim. Raises ValueError where `tokens` does not fit the routing.
    """
    from rich.console import Group

    check_tokens(routing, tokens)
    rows = [_row(routing, row, tokens[row]) for row in range(routing.shape[0])]
    return Group(*rows, _legend(routing))


def check_tokens(routing: Routing, tokens: Sequence[Sequence[str]]) -> None:
    """Raises ValueError unless `tokens` holds a string for every token of `routing`."""
    lengths = [len(row) for row in tokens]
    if lengths != [routing.shape[1]] * routing.shape[0]:
        raise ValueError(
            f"`tokens` do not fit the routing: expected {routing.shape[0]} rows of {routing.shape[1]} strings, "
            f"got rows of {lengths}. Pass the tokens of the same input_ids."
        )


def media_colour(modality: int) -> str:
    """The colour of a media modality, 1 or more."""
    return MEDIA_COLOURS[(modality - 1) % len(MEDIA_COLOURS)]


def turn_colour(turn: int) -> str:
    """The colour of a turn's instruction, 1 or more."""
    return TURN_COLOURS[(turn - 1) % len(TURN_COLOURS)]


def _row(routing: Routing, row: int, tokens: Sequence[str]) -> Text:
    from rich.text import Text

    spans, names = spans_of(routing, row), modality_names(routing)
    drawn = Text()
    if routing.shape[0] > 1:
        drawn.append(f"row {row}\n", "bold")
    for span in spans:
        if not span.is_media:
            style = f"bold {turn_colour(span.turn)}" if span.is_instruction else "dim"
            drawn.append(visible(span.text(tokens)), style)
            continue
        if drawn.plain and not drawn.plain.endswith("\n"):
            drawn.append("\n")
        drawn.append(
            f" {names[span.modality]} x{span.stop - span.start} ", f"bold white on {media_colour(span.modality)}"
        )
        drawn.append_text(_keys(span, keys_of(span, spans, tokens)))
    drawn.rstrip()
    return drawn


def _keys(span: Span, keys: str) -> Text:
    from rich.text import Text

    if not keys:
        reason = "in no user turn" if span.turn == 0 else f"turn {span.turn} has no instruction"
        return Text.assemble((f" {reason}: attends to nothing\n", "italic red"))
    shown = keys if len(keys) <= SHOWN_KEYS else f"{keys[:SHOWN_KEYS].rstrip()} ..."
    return Text.assemble(
        (f" turn {span.turn}\n", "dim"), ("  attends to: ", "dim"), (f"{visible(shown)}\n", turn_colour(span.turn))
    )


def _legend(routing: Routing) -> Text:
    from rich.text import Text

    names, turns = modality_names(routing), sorted({*routing.turn.unique().tolist()} - {0})
    legend = Text("\n")
    for index, name in enumerate(names[1:], start=1):
        legend.append(f" {name} ", f"bold white on {media_colour(index)}").append(" ")
    for turn in turns:
        legend.append(f"instruction of turn {turn}", f"bold {turn_colour(turn)}").append("  ")
    legend.append("other text\n", "dim")
    return legend.append(describe_share(routing))


def describe_share(routing: Routing) -> str:
    """How many media tokens have keys, as a sentence."""
    with_keys, media = count_media(routing)
    if not media:
        return "no media tokens"
    return f"{with_keys} of {media} media tokens attend to an instruction ({with_keys / media:.0%})"


def visible(text: str) -> str:
    """The text with its line ends shown as a sign."""
    return text.replace("\r", "").replace("\n", "\u21b5")
