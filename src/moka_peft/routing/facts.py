"""What a Routing implies of its tokens: read once, kept with it, shared by all layers of a forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .routing import Routing

LEAST_STRETCH = 512  # rows on average: each costs operators of its own


def has_media(routing: Routing) -> bool:
    """Whether any token is media; read from the device once per Routing. In a compiled graph True, unless known."""
    if torch.compiler.is_compiling():
        return routing._derived.get("has_media", True)
    return derived(routing, "has_media", lambda: bool(routing.is_media.any()))


def has_padding(routing: Routing) -> bool:
    """Whether any token is padding; as `has_media`."""
    if torch.compiler.is_compiling():
        return routing._derived.get("has_padding", True)
    return derived(routing, "has_padding", lambda: bool((routing.modality < 0).any()))


def attending(routing: Routing) -> tuple[Tensor, Tensor]:
    """Media tokens that have an instruction, and instruction tokens that have media: two [B, S] bool, on the host."""
    return derived(routing, "attending", lambda: _attending(routing))


def stretches_that_differ(routing: Routing, *, text_query: bool) -> list[tuple[int, int]]:
    """(start, stop) of the rows [T] whose result is not the text path's: media, and instruction that asks media.

    Short ones are one, from the first to the last.
    """
    return derived(routing, ("stretches", text_query), lambda: _stretches_that_differ(routing, text_query))


def rows_as_text(routing: Routing, *, text_query: bool) -> Tensor:
    """[T, 1] bool: the rows whose result is the text path's, and padding."""

    def build() -> Tensor:
        differs = routing.is_media | routing.is_instruction if text_query else routing.is_media
        return ~differs.view(-1, 1)

    return derived(routing, ("as text", text_query), build)


def derived(routing: Routing, key: Any, build: Callable[[], Any]) -> Any:
    if torch.compiler.is_compiling():
        return build()
    if key not in routing._derived:
        with torch.inference_mode(False):  # it may outlive an inference_mode, and be trained with
            routing._derived[key] = build()
    return routing._derived[key]


def by_turn(routing: Routing) -> tuple[Tensor, Tensor, Tensor]:
    """Modality, turn, and a number for every turn of every sample: three [T], on the host."""
    modality, turn = (values.flatten() for values in routing.on_host())
    number = turn if int(turn.max()) <= len(turn) else turn.unique(return_inverse=True)[1]  # a table is made of them
    row = torch.arange(routing.shape[0], device="cpu").repeat_interleave(routing.shape[1])
    return modality, turn, row * (int(number.max()) + 1) + number


def _attending(routing: Routing) -> tuple[Tensor, Tensor]:
    modality, turn, group = by_turn(routing)
    media, text = (modality > 0) & (turn > 0), (modality == 0) & (turn > 0)
    found = (
        query & (torch.bincount(group[key], minlength=int(group.max()) + 1)[group] > 0)
        for query, key in ((media, text), (text, media))
    )
    with_key, is_key = (mask.view(routing.shape) for mask in found)
    return with_key, is_key


def _stretches_that_differ(routing: Routing, text_query: bool) -> list[tuple[int, int]]:
    differs = routing.on_host()[0].flatten() > 0
    if text_query:
        differs = differs | attending(routing)[1].flatten()
    values, lengths = torch.unique_consecutive(differs, return_counts=True)
    stops = lengths.cumsum(0)
    found = list(zip((stops - lengths)[values].tolist(), stops[values].tolist(), strict=True))
    is_long = len(differs) >= LEAST_STRETCH * len(found)
    return found if is_long or not found else [(found[0][0], found[-1][1])]
