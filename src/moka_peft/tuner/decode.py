"""Steps of `generate` after its prompt: one token a row that it chose itself, so text, whatever its id."""

from __future__ import annotations

from threading import get_ident

import torch
from torch import Tensor, nn

from .channel import RoutingChannel, RunningForward
from .explicit import CONSUMED
from .forward import Forward, given_cache
from .generation import Prompt


def is_generated(channel: RoutingChannel, kwargs: dict) -> bool:
    """Whether this forward is such a step. Reads no tensor: a compiled step asks too."""
    if not channel.past_prompt or any(name in kwargs for name in CONSUMED):
        return False
    if not torch.compiler.is_compiling() and channel.generating != get_ident():
        return False
    ids = kwargs.get("input_ids")
    is_one_token = isinstance(ids, Tensor) and ids.dim() == 2 and ids.shape[1] == 1
    return is_one_token and kwargs.get("labels") is None and given_cache(kwargs) is not None


def is_compiled_step(channel: RoutingChannel, forward: Forward) -> bool:
    """Whether `forward` of `generate` may run compiled: one token a row, past what `generate` was given. What lies in
    that takes its columns of the routing by the length of the cache, which no graph knows."""
    if forward.shape[1:] != (1,):
        return False
    width = _given_columns(channel, channel.prompt)
    return channel.past_prompt or width is None or forward.cached_length >= width


def open_generated(channel: RoutingChannel, module: nn.Module, kwargs: dict) -> None:
    """Puts the text's routing into the channel, for whichever adapters: without an operator and without a check."""
    ids = kwargs["input_ids"]
    text = channel.text(ids.shape[0], 1, ids.device)
    channel.current, channel.owner = RunningForward({name: text for name in channel.configs}), module


def note_end_of_prompt(channel: RoutingChannel, prompt: Prompt | None, forward: Forward) -> None:
    """Tells the steps to come that `forward` covers the last of what `generate` was given, where that is known."""
    if channel.generating != get_ident() or not forward.shape:
        return
    width = _given_columns(channel, prompt)
    if width is not None and forward.cached_length + forward.shape[1] >= width:
        channel.past_prompt = True
        if forward.input_ids is not None:
            channel.text(forward.shape[0], 1, forward.input_ids.device)  # made now, not in a step


def _given_columns(channel: RoutingChannel, prompt: Prompt | None) -> int | None:
    fixed = channel.fixed.routing if channel.fixed is not None else None
    return prompt.length if prompt is not None else fixed.shape[1] if fixed is not None else None
