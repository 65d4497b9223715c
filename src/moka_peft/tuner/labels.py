"""Labels as a forward takes them: `supervised_instruction="ignore"` takes loss off the instruction that media read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from moka_peft.routing import Routing

from .channel import ATTRIBUTE, RoutingChannel
from .explicit import pop_explicit
from .forward import Forward
from .reading import routings
from .supervision import without_supervised_instruction


def ignore_supervised(channel: RoutingChannel, current: dict[str, Routing], forward: Forward, kwargs: dict) -> dict:
    labels = forward.labels
    for adapter, routing in current.items():
        config = channel.configs[adapter]
        if labels is not None and config.interaction != "none" and config.supervised_instruction == "ignore":
            labels = without_supervised_instruction(labels, routing)
    return kwargs if labels is forward.labels else {**kwargs, "labels": labels}


def labels_with_loss(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """The labels [B, S] of a batch as its forward will take them: without what `supervised_instruction="ignore"` does.

    model: any, with a MokA adapter or not.
    """
    channel = next((found for module in model.modules() if (found := module.__dict__.get(ATTRIBUTE))), None)
    adapters = channel.active_adapters() if channel is not None else []
    if channel is None or all(channel.configs[name].supervised_instruction != "ignore" for name in adapters):
        return batch["labels"]
    kwargs = dict(batch)
    routing, _ = pop_explicit(channel, kwargs)
    forward = Forward.of(channel.models[0], (), kwargs)
    current = routings(channel, channel.models[0], adapters, routing, forward)
    return ignore_supervised(channel, current, forward, kwargs)["labels"]
