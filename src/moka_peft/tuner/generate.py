"""The `generate` that the hook puts in place of a model's own."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from .channel import FixedRouting, RoutingChannel, use_routing
from .explicit import pop_explicit
from .forward import Forward
from .generation import Prompt, chunk_size_for
from .specs import spec_of
from .threads import generating


def routed_generate(channel: RoutingChannel, model: nn.Module, own: Any, *args: Any, **kwargs: Any) -> Any:
    """`generate` that also takes explicit routing, and that routes its forwards by the whole prompt.

    `own`: the one that was on the instance; None: its class's.
    """
    routing, allow_open = pop_explicit(channel, kwargs)
    fixed = channel.fixed or FixedRouting(None)
    routing, allow_open = routing or fixed.routing, allow_open or fixed.allow_open_turn
    with generating(channel, Prompt.of(args, kwargs)), use_routing(model, routing, allow_open_turn=allow_open):
        if routing is None and not allow_open:
            _keep_turns_whole(channel, model, args, kwargs)
        run: Any = own or partial(type(model).generate, model)  # pyright: ignore[reportAttributeAccessIssue]
        return run(*args, **kwargs)


def _keep_turns_whole(channel: RoutingChannel, model: nn.Module, args: tuple, kwargs: dict) -> None:
    """Enlarges `prefill_chunk_size` where a chunk would end inside a turn with media."""
    positional = args[1] if len(args) > 1 else None
    config = kwargs.get("generation_config") or positional or getattr(model, "generation_config", None)
    size = kwargs.get("prefill_chunk_size") or getattr(config, "prefill_chunk_size", None)
    if not size or channel.prompt is None:
        return
    adapters = [channel.configs[a] for a in channel.active_adapters()]
    specs = [spec_of(model, c) for c in adapters if c.interaction != "none"]
    cached = Forward.of(model, args, kwargs).cached_length
    kwargs["prefill_chunk_size"] = chunk_size_for(channel.prompt, specs, size, cached)
