"""RoutingChannel: how the routing of a forward reaches the adapted layers of a model.

A pre-hook on the model's root (and on its inner base model, which some trainers call) finds the routing and puts it
into the channel; the adapted layers read it; the channel is emptied when that forward ends, so that no layer can use
the routing of an earlier one. Recomputation under gradient checkpointing happens after the forward has ended: the
model's checkpointing function is wrapped so that the routing is captured with the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import nn

from moka_peft.routing import Routing

from .generation import Prompt

ATTRIBUTE = "_moka_channel"


@dataclass(frozen=True, eq=False)
class FixedRouting:
    """What `use_routing` holds for all forwards inside it."""

    routing: Routing | None
    allow_open_turn: bool = False


@dataclass(frozen=True, eq=False)
class RunningForward:
    """The forward that is running: adapter name -> its routing, and how many last columns give logits (0: all)."""

    routings: dict[str, Routing]
    logits_to_keep: int = 0


@dataclass(eq=False)
class RoutingChannel:
    """What one model's hook and adapted layers share.

    `configs`: adapter name -> MokaConfig. `current`: the forward that is running.
    `owner`: the module whose forward opened the channel, in `thread`. `fixed`: set by `use_routing`. `prompt`: what
    `generate` continues while it runs, in the thread `generating`; `past_prompt`: its forwards have covered all of what
    it was given, so what follows is generated text. `checkpointed`: modules that may recompute adapted
    layers. `models`: those with hooks, outermost first. `generators`: modules whose `generate` is wrapped, each with
    the one that it had on the instance. `watch`: of the running forward, what a loss computed from its output must
    not do.
    """

    configs: dict[str, Any] = field(default_factory=dict)
    layers: list[Any] = field(default_factory=list)
    checkpointed: list[nn.Module] = field(default_factory=list)
    current: RunningForward | None = None
    owner: nn.Module | None = None
    thread: int | None = None
    generating: int | None = None
    fixed: FixedRouting | None = None
    prompt: Prompt | None = None
    past_prompt: bool = False
    generated_text: Routing | None = None
    hooks: list[Any] = field(default_factory=list)
    models: list[nn.Module] = field(default_factory=list)
    generators: list[tuple[nn.Module, Any]] = field(default_factory=list)
    keys_seen: dict[str, KeyCount] = field(default_factory=dict)
    watch: Any = None

    def read(self, adapter: str, layer: str, device: torch.device) -> Routing:
        """The running forward's routing for `adapter`, on `device`. Raises RuntimeError where there is none."""
        if self.current is None or adapter not in self.current.routings:
            raise RuntimeError(
                f"layer {layer!r} ran outside a forward of the model that its MokA adapter belongs to, so it has no "
                "routing. Call the model itself; or, for gradient checkpointing, enable it with "
                "model.gradient_checkpointing_enable() so that the recomputation keeps its routing."
            )
        return self.current.routings[adapter].to(device)

    @property
    def logits_to_keep(self) -> int:
        """How many last columns of the running forward give logits; 0: all."""
        return self.current.logits_to_keep if self.current is not None else 0

    def text(self, batch: int, length: int, device: torch.device) -> Routing:
        """The routing of generated text: one object, and no operator, for as long as the shape stays."""
        text = self.generated_text
        if text is None or text.shape != (batch, length) or text.modality.device != device:
            text = Routing.text(batch, length, device)
            if not torch.compiler.is_compiling():  # a graph's tensors are no one else's
                self.generated_text = text
        return text

    def active_adapters(self) -> list[str]:
        """Adapters that the next forward will use: the active and the merged ones, none while disabled."""
        used: dict[str | tuple[str, ...], None] = {}  # states in their order: most layers share one
        for layer in self.layers:
            if not layer.disable_adapters:
                active = layer.active_adapter
                used[active if isinstance(active, str) else tuple(active)] = None
                used[tuple(layer.merged_adapters)] = None
        names = chain.from_iterable([state] if isinstance(state, str) else state for state in used)
        return [name for name in dict.fromkeys(names) if name in self.configs]

    @contextmanager
    def holding(self, current: RunningForward) -> Iterator[None]:
        """`current` for the time of one (re)computation."""
        previous, self.current = self.current, current
        try:
            yield
        finally:
            self.current = previous

    def bind_checkpoints(self) -> None:
        """Wraps the checkpointing function of every module that has one and is not wrapped yet."""
        for module, name in self._checkpoint_functions():
            if not isinstance(module.__dict__[name], RoutedCheckpoint):
                module.__dict__[name] = RoutedCheckpoint(module.__dict__[name], self)

    def unbind_checkpoints(self) -> None:
        """Undoes `bind_checkpoints`: a later adapter's recomputation must not ask this channel."""
        for module, name in self._checkpoint_functions():
            function = module.__dict__[name]
            if isinstance(function, RoutedCheckpoint):
                module.__dict__[name] = function.checkpoint

    def _checkpoint_functions(self) -> Iterator[tuple[nn.Module, str]]:
        """Where checkpointing functions lie: transformers' in the model, torch's in wrappers put around its layers."""
        for module in self.checkpointed:
            if module.__dict__.get("_gradient_checkpointing_func") is not None:
                yield module, "_gradient_checkpointing_func"
        if not torch.compiler.is_compiling():
            yield from ((module, "checkpoint_fn") for module in _checkpoint_wrappers(self.models[:1]))


def _checkpoint_wrappers(modules: list[nn.Module]) -> Iterator[nn.Module]:
    """torch's CheckpointWrappers inside, as FSDP's `activation_checkpointing` sets them; not looked for in layers.

    They come when training is prepared, so each forward looks again: 0.12 ms in a 7B.
    """
    left = list(modules)
    while left:
        module = left.pop()
        if "checkpoint_fn" in module.__dict__:
            yield module
        if not isinstance(module.__dict__.get("channel"), RoutingChannel):
            left.extend(child for child in module._modules.values() if child is not None)


@dataclass(eq=False)
class KeyCount:
    """Media tokens seen in training forwards and how many of them had an instruction to attend to."""

    forwards: int = 0
    media: int = 0
    with_key: int = 0


@dataclass(frozen=True, eq=False)
class RoutedCheckpoint:
    """A checkpointing function whose recomputation runs with the routing of its own forward."""

    checkpoint: Callable[..., Any]
    channel: RoutingChannel

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.channel.current is None or torch.compiler.is_compiling():
            return self.checkpoint(function, *args, **kwargs)
        return self.checkpoint(partial(self._run, self.channel.current, function), *args, **kwargs)

    def _run(self, current: RunningForward, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self.channel.holding(current):
            return function(*args, **kwargs)


def channel_of(model: nn.Module) -> RoutingChannel:
    """The channel of `model`: a PeftModel, its base, or any module that holds adapted Linears.

    Raises ValueError where the module holds no MokA layer.
    """
    for module in model.modules():
        channel = module.__dict__.get(ATTRIBUTE) or module.__dict__.get("channel")
        if isinstance(channel, RoutingChannel):
            return channel
    raise ValueError(f"`model`: {type(model).__name__} holds no MokA adapter. Wrap it with get_peft_model first.")


def media_with_keys(model: nn.Module) -> dict[str, float]:
    """Adapter name -> share of media tokens, over all training forwards, that had an instruction to attend to."""
    return {name: c.with_key / c.media for name, c in channel_of(model).keys_seen.items() if c.media}


@contextmanager
def use_routing(model: nn.Module, routing: Routing | None, *, allow_open_turn: bool = False) -> Iterator[None]:
    """Fixes the routing of the first S positions for every forward of `model` inside the block.

    Columns past S are text of turn 0. A forward that continues a cache takes its columns by cache position; rows
    repeat when its batch is a multiple of the routing's (beams). `routing` None: routing is read from `input_ids` as
    usual. `allow_open_turn`: media whose turn is not closed when a cache is filled stay without keys instead of
    raising. Raises ValueError where the batch is no multiple or the first forward is shorter than S.
    """
    channel = channel_of(model)
    previous, channel.fixed = channel.fixed, FixedRouting(routing, allow_open_turn)
    try:
        yield
    finally:
        channel.fixed = previous
