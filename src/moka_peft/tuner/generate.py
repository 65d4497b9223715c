"""The `generate` that the hook puts in place of a model's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from .channel import FixedRouting, RoutingChannel, use_routing
from .decode import is_compiled_step
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
    with (
        generating(channel, Prompt.of(args, kwargs)),
        use_routing(model, routing, allow_open_turn=allow_open),
        _compiling_steps_alone(channel, model),
    ):
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


@contextmanager
def _compiling_steps_alone(channel: RoutingChannel, model: nn.Module) -> Iterator[None]:
    """Keeps forwards that may see the prompt out of graphs: those of `get_compiled_call`, through which `generate` runs
    chunks and steps on a static cache, and those of `model.compile()`."""
    replaced: dict[str, Any] = {}
    if channel.active_adapters():
        own, compiled = getattr(model, "get_compiled_call", None), model._compiled_call_impl
        if own is not None:
            replaced["get_compiled_call"] = lambda *args, **kwargs: partial(_run, channel, model, own(*args, **kwargs))
        if compiled is not None:
            replaced["_compiled_call_impl"] = partial(_run, channel, model, compiled)
    previous = {name: model.__dict__[name] for name in replaced if name in model.__dict__}
    model.__dict__.update(replaced)
    try:
        yield
    finally:
        for name in replaced:
            del model.__dict__[name]
        model.__dict__.update(previous)


def _run(channel: RoutingChannel, model: nn.Module, compiled: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    is_step = is_compiled_step(channel, Forward.of(model, args, kwargs))
    return compiled(*args, **kwargs) if is_step else model._call_impl(*args, **kwargs)
