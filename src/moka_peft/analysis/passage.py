"""Passage: which tokens of a forward pass the adapter, and the outputs of layers where only those do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from moka_peft.analysis.adapted_layers import check_unmerged
from moka_peft.routing import TEXT, Routing
from moka_peft.tuner.channel import RoutingChannel
from moka_peft.tuner.forward import Forward
from moka_peft.tuner.rows import routing_of


@dataclass(eq=False)
class Passage:
    """Which tokens of the running forward pass the adapter.

    chosen: the numbers of the modalities. passes: 1 at the tokens that do, in a Routing's form, so that a layer that
    sees a part of the tokens finds its own; None: all do.
    """

    channel: RoutingChannel
    adapter: str
    chosen: list[int]
    generated: bool
    passes: Routing | None = None

    def open(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Before a forward, when the channel has its routing."""
        if self.channel.owner not in (None, module):
            return  # a model inside the one that runs
        self.passes = None
        if self.channel.current is None:
            return  # the adapter is disabled
        routing = self.channel.current.routings[self.adapter]
        modality = routing.modality.clamp(min=TEXT)  # [B, S]; what padding gives is nobody's result
        passes = torch.isin(modality, torch.tensor(self.chosen, device=modality.device))
        if self.generated:
            passes = passes | _is_generated(self.channel, Forward.of(module, args, kwargs), routing)
        if not bool(passes.all()):
            self.passes = Routing.unchecked(passes.long(), torch.zeros_like(modality), None, None)

    def choose(self, name: str, layer: Any, args: tuple, kwargs: dict, output: Tensor) -> Tensor:
        """After a layer: its output where the token passes, its base's elsewhere."""
        if layer.disable_adapters:
            return output
        x = args[0]
        self.channel.read(self.adapter, name, x.device)  # raises outside a forward of the model
        check_unmerged(name, layer)
        if self.passes is None:
            return output
        passes = routing_of(x, self.passes.to(x.device), "none", self.channel.logits_to_keep).modality
        base = layer.base_layer(*args, **kwargs)
        return torch.where(passes.view(*x.shape[:-1], 1) > 0, output, base.to(output.dtype))


def _is_generated(channel: RoutingChannel, forward: Forward, routing: Routing) -> Tensor:
    """[S] bool: columns that follow the prompt of `generate`; without one, a lone token that continues a cache."""
    length, device = routing.shape[1], routing.modality.device
    start, prompt = forward.cached_length, channel.prompt
    if prompt is not None and prompt.holds(forward):
        return torch.arange(start, start + length, device=device) >= prompt.length
    return torch.full((length,), length == 1 and start > 0, device=device)
