"""Routing given by hand: as keywords of a forward, or by `use_routing` for the columns that each forward covers."""

from __future__ import annotations

import torch
from torch import Tensor

from moka_peft.routing import Routing

from .channel import RoutingChannel
from .forward import Forward

CONSUMED = ("routing", "moka_modality", "moka_turn", "allow_open_turn")


def pop_explicit(channel: RoutingChannel, kwargs: dict) -> tuple[Routing | None, bool]:
    """Takes our keywords out of `kwargs`: they are not the model's."""
    routing, modality, turn, allow_open = (kwargs.pop(name, None) for name in CONSUMED)
    if routing is None and modality is not None:
        turn = torch.zeros_like(modality) if turn is None else turn
        routing = Routing(modality, turn)
    if routing is not None and not isinstance(routing, Routing):
        raise ValueError(f"`routing`: expected a moka_peft.Routing, got {type(routing).__name__}.")
    if routing is not None and routing.modalities is None:
        _check_one_order(channel)
    return routing, bool(allow_open)


def _check_one_order(channel: RoutingChannel) -> None:
    orders = {channel.configs[a].modalities for a in channel.active_adapters()}
    if len(orders) > 1:
        raise ValueError(
            f"`routing` has no `modalities`, and the active adapters differ in theirs: {sorted(orders)}. "
            "Name them: Routing(modality, turn, modalities=(...))."
        )


def fixed_columns(channel: RoutingChannel, routing: Routing, forward: Forward) -> Routing:
    """The rows and columns of a fixed routing that this forward covers."""
    batch, length = forward.shape
    rows, width = routing.shape
    if batch % rows:
        raise ValueError(
            f"`use_routing`: the routing has {rows} rows, the forward {batch}, which is no multiple of it."
        )
    start = forward.cached_length if forward.cache is not None else 0
    if start == 0 and length < width:
        raise ValueError(
            f"`use_routing`: the routing describes {width} positions, the first forward has only {length}. "
            "Pass the routing of this input, or give the whole prompt in one forward."
        )
    if (batch, length, start) == (rows, width, 0):
        return routing
    if start >= width:
        return channel.text(batch, length, routing.modality.device)

    def fit(values: Tensor) -> Tensor:
        filler = values.new_zeros(rows, max(start + length - width, 0))
        return torch.cat([values, filler], 1)[:, start : start + length].repeat_interleave(batch // rows, 0)

    return Routing.unchecked(fit(routing.modality), fit(routing.turn), routing.modalities, None)


def check_fits(routing: Routing, forward: Forward) -> None:
    if forward.shape and routing.shape != forward.shape:
        raise ValueError(
            f"`routing` describes {list(routing.shape)} tokens, but the input has {list(forward.shape)} "
            "([batch, sequence]). Pass the routing of this very input."
        )
