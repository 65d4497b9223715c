"""Whose forward a channel holds: that of one thread at a time, and not one that was interrupted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident

from torch import compiler, nn

from .channel import RoutingChannel
from .generation import Prompt

ONE_AT_A_TIME = (
    "another thread is running this model, and MokA keeps the routing of one call at a time. Let one thread call the "
    "model, hold a lock around the calls, or give every thread its own copy."
)


def runs_inside(channel: RoutingChannel, module: nn.Module) -> bool:
    """Whether `module` is called by the forward that opened the channel.

    An interrupted forward (Ctrl-C) never closes it: it is over where its module, or one around that, is called again.
    Raises RuntimeError where the open forward is another thread's.
    """
    owner = channel.owner
    if owner is None or compiler.is_compiling():
        return owner is not None and owner is not module
    if channel.thread not in (None, get_ident()):
        if _is_running(channel.thread, owner):
            raise RuntimeError(ONE_AT_A_TIME)
        return False
    return channel.models.index(module) > channel.models.index(owner)


def _is_running(thread: int, module: nn.Module) -> bool:
    frame = sys._current_frames().get(thread)
    while frame is not None and frame.f_locals.get("self") is not module:
        frame = frame.f_back
    return frame is not None


@contextmanager
def generating(channel: RoutingChannel, prompt: Prompt | None) -> Iterator[None]:
    """`prompt` for the time of one `generate`. Raises RuntimeError where another thread is in one."""
    if channel.generating not in (None, get_ident()):
        raise RuntimeError(ONE_AT_A_TIME)
    previous = channel.generating, channel.prompt, channel.past_prompt
    channel.generating, channel.prompt, channel.past_prompt = get_ident(), prompt, False
    try:
        yield
    finally:
        channel.generating, channel.prompt, channel.past_prompt = previous
