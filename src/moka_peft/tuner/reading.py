"""The routing of one forward, for every adapter: given, a part of a prompt, or read from the forward's own ids."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from moka_peft.routing import Routing, RoutingSpec
from moka_peft.routing.scan import names_media, route, route_alone, route_if_media

from .channel import RoutingChannel
from .forward import Forward
from .generation import Prompt
from .specs import spec_of

FEW_TOKENS = 256  # in a batch: their ids are sooner copied to the host than compared on a device


def prompt_of(channel: RoutingChannel, explicit: Routing | None, forward: Forward) -> Prompt | None:
    """The prompt that `forward` continues; None outside `generate`, and in a compiled step: it would read the cache."""
    if explicit is not None or channel.prompt is None or torch.compiler.is_compiling():
        return None
    return channel.prompt if channel.prompt.holds(forward) else None


def routings(
    channel: RoutingChannel, module: nn.Module, adapters: list[str], known: Routing | Prompt | None, forward: Forward
) -> dict[str, Routing]:
    """Every adapter's routing, in its own order of modalities; the input is read once per distinct spec."""
    configs = {adapter: channel.configs[adapter] for adapter in adapters}
    if isinstance(known, Routing):
        return {adapter: known.renamed(config.modalities) for adapter, config in configs.items()}
    ids = forward.input_ids
    if ids is None:
        raise ValueError(
            "MokA found no `input_ids` to route by. Pass routing=Routing(...) to the forward, or wrap the call in "
            "use_routing(model, routing)."
        )
    read: list[tuple[RoutingSpec, Routing]] = []
    current = {}
    for adapter, config in configs.items():
        spec = _spec_for(module, config, forward)
        routing = next((routing for other, routing in read if other == spec), None)
        if routing is None:
            routing = _read(channel, spec, known, ids, forward)
            read.append((spec, routing))
        current[adapter] = routing.renamed(config.modalities)
    return current


def _read(channel: RoutingChannel, spec: RoutingSpec, prompt: Prompt | None, ids: Tensor, forward: Forward) -> Routing:
    if prompt is not None:
        return prompt.columns(spec, forward)
    is_compiling = torch.compiler.is_compiling()
    if is_compiling and ids.shape[1] == 1:
        return route_alone(ids, spec)
    if not is_compiling and _continues_with_few(forward, ids) and not names_media(ids, spec):
        return channel.text(ids.shape[0], ids.shape[1], ids.device)
    length = channel.prompt.length if channel.prompt is not None and not spec.user_close else None
    read = route if is_compiling else route_if_media
    return read(ids, spec, forward.attention_mask, prompt_length=length, position_ids=forward.position_ids)


def _continues_with_few(forward: Forward, ids: Tensor) -> bool:
    """Whether these are a decode loop's tokens. If all are text, nothing else of them matters."""
    is_step = ids.dim() == 2 and ids.numel() <= FEW_TOKENS and forward.labels is None and forward.cache is not None
    return is_step and (ids.shape[1] == 1 or forward.cached_length > 0)


def _spec_for(module: nn.Module, config: Any, forward: Forward) -> RoutingSpec:
    spec = spec_of(module, config)
    if forward.labels is not None and not (spec.user_close or spec.answer_start):
        raise ValueError(
            "the routing spec knows neither where a user turn closes nor where an answer starts, so training "
            "cannot tell instruction from answer. Pass routing=Routing(...), or moka_modality and "
            "moka_turn from the collator."
        )
    return spec
