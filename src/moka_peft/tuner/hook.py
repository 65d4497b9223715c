"""The hook on the model's root: finds the routing of each forward and puts it into the channel."""

from __future__ import annotations

from functools import partial
from threading import get_ident
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from moka_peft.ops.compiled import numbered
from moka_peft.routing import Routing

from . import guards, supervision
from .channel import ATTRIBUTE, RoutingChannel, RunningForward
from .decode import is_generated, note_end_of_prompt, open_generated
from .explicit import check_fits, fixed_columns, pop_explicit
from .forward import Forward, named_arguments
from .generate import routed_generate
from .labels import ignore_supervised
from .reading import prompt_of, routings
from .threads import runs_inside


def install(model: nn.Module, channel: RoutingChannel) -> None:
    """Puts the hook on `model` and every model inside it that holds adapted layers; once, however often it is called.

    Some trainers call an inner model, and some models (Qwen2.5-Omni) have no forward of their own: whichever is
    called first routes for those inside it.
    """
    setattr(model, ATTRIBUTE, channel)
    if channel.hooks:
        return
    channel.models = _callable_models(model, channel)
    for module in channel.models:
        channel.hooks.append(module.register_forward_pre_hook(partial(_open, channel), with_kwargs=True))
        channel.hooks.append(module.register_forward_hook(partial(_close, channel), always_call=True))
        if callable(getattr(module, "generate", None)):
            own = module.__dict__.get("generate")  # some put one on the instance
            module.__dict__["generate"] = partial(routed_generate, channel, module, own)
            channel.generators.append((module, own))


def _callable_models(model: nn.Module, channel: RoutingChannel) -> list[nn.Module]:
    inner = [m for m in model.modules() if isinstance(m, PreTrainedModel) and m is not model]
    adapted = set(channel.layers)
    return [model, *(m for m in inner if not adapted.isdisjoint(m.modules()))]


def uninstall(model: nn.Module) -> None:
    """Takes the hook off again."""
    channel = model.__dict__.pop(ATTRIBUTE, None)
    if channel is None:
        return
    for handle in channel.hooks:
        handle.remove()
    channel.hooks.clear()
    channel.unbind_checkpoints()
    for module, own in channel.generators:
        module.__dict__.pop("generate", None)
        if own is not None:
            module.__dict__["generate"] = own
    channel.generators.clear()
    channel.models.clear()


def _close(channel: RoutingChannel, module: nn.Module, args: tuple, output: Any) -> None:
    if channel.owner is module and (
        channel.thread is None or channel.thread == get_ident()
    ):  # not where this call was refused
        channel.current = channel.owner = None
        watch, channel.watch = channel.watch, None
        if watch is not None:
            watch.attach(output)


def _open(channel: RoutingChannel, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    if runs_inside(channel, module):
        return None
    channel.current = channel.owner = channel.watch = None
    channel.thread = None if torch.compiler.is_compiling() else get_ident()
    if is_generated(channel, kwargs):
        open_generated(channel, module, kwargs)
        return None
    if getattr(module, "_is_replica", False):
        raise RuntimeError("MokA does not run under torch.nn.DataParallel. Use one process per device (torchrun).")
    routing, allow_open = pop_explicit(channel, kwargs)
    adapters = channel.active_adapters()
    if not adapters:
        return args, kwargs
    args, kwargs = named_arguments(module, args, kwargs)
    forward = Forward.of(module, args, kwargs)
    if channel.fixed is not None:
        allow_open = allow_open or channel.fixed.allow_open_turn
        if routing is None and channel.fixed.routing is not None:
            routing = fixed_columns(channel, channel.fixed.routing, forward)
    if routing is not None:
        check_fits(routing, forward)
    prompt = prompt_of(channel, routing, forward)
    current = routings(channel, module, adapters, routing or prompt, forward)
    if not torch.compiler.is_compiling():
        guards.check(channel, current, forward, prompt, allow_open)
        channel.watch = _watch(channel, current, forward, kwargs)
        note_end_of_prompt(channel, prompt, forward)
    else:
        current = {name: numbered(routing) for name, routing in current.items()}
    kwargs = ignore_supervised(channel, current, forward, kwargs)
    if module.training and torch.is_grad_enabled():
        channel.bind_checkpoints()
    channel.current, channel.owner = RunningForward(current, forward.logits_to_keep), module
    return args, kwargs


def _watch(
    channel: RoutingChannel, current: dict[str, Routing], forward: Forward, kwargs: dict
) -> supervision.Watch | None:
    """Where the loss is the caller's, only its gradient shows what it is on."""
    if not forward.is_training or forward.labels is not None or forward.input_ids is None:
        return None
    kept = kwargs.get("logits_to_keep")  # a tensor chooses positions
    return supervision.Watch.of(channel, current, forward.input_ids, 0 if kept is None else kept)
