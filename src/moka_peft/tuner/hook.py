"""The hook on the model's root: finds the routing of each forward and puts it into the channel."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from moka_peft.routing import Routing, RoutingSpec, route

from . import guards, supervision
from .channel import ATTRIBUTE, FixedRouting, RoutingChannel, RunningForward, use_routing
from .forward import Forward, named_arguments
from .generation import Prompt, chunk_size_for
from .threads import generating, runs_inside

CONSUMED = ("routing", "moka_modality", "moka_turn", "allow_open_turn")


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
            module.__dict__["generate"] = partial(_generate, channel, module, own)
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


def _generate(channel: RoutingChannel, model: nn.Module, own: Any, *args: Any, **kwargs: Any) -> Any:
    """`generate` that also takes explicit routing, and that routes its forwards by the whole prompt.

    `own`: the one that was on the instance; None: its class's.
    """
    routing, allow_open = _pop_explicit(channel, kwargs)
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
    if getattr(module, "_is_replica", False):
        raise RuntimeError("MokA does not run under torch.nn.DataParallel. Use one process per device (torchrun).")
    routing, allow_open = _pop_explicit(channel, kwargs)
    adapters = channel.active_adapters()
    if not adapters:
        return args, kwargs
    args, kwargs = named_arguments(module, args, kwargs)
    forward = Forward.of(module, args, kwargs)
    if channel.fixed is not None:
        allow_open = allow_open or channel.fixed.allow_open_turn
        if routing is None and channel.fixed.routing is not None:
            routing = _columns(channel.fixed.routing, forward)
    if routing is not None:
        _check_fits(routing, forward)
    prompt = _prompt_of(channel, routing, forward)
    current = _routings(channel, module, adapters, routing or prompt, forward)
    if not torch.compiler.is_compiling():
        guards.check(channel, current, forward, prompt, allow_open)
        channel.watch = _watch(channel, current, forward, kwargs)
    kwargs = _ignore_supervised(channel, current, forward, kwargs)
    if module.training and torch.is_grad_enabled():
        channel.bind_checkpoints()
    channel.current, channel.owner = RunningForward(current, forward.logits_to_keep), module
    channel.thread = None if torch.compiler.is_compiling() else get_ident()
    return args, kwargs


def _pop_explicit(channel: RoutingChannel, kwargs: dict) -> tuple[Routing | None, bool]:
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


def _prompt_of(channel: RoutingChannel, explicit: Routing | None, forward: Forward) -> Prompt | None:
    """The prompt that `forward` continues; None outside `generate`, and in a compiled step: it would read the cache."""
    if explicit is not None or channel.prompt is None or torch.compiler.is_compiling():
        return None
    return channel.prompt if channel.prompt.holds(forward) else None


def _routings(
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
    length = channel.prompt.length if channel.prompt is not None else None
    return route(ids, spec, forward.attention_mask, prompt_length=length, position_ids=forward.position_ids)


def _spec_for(module: nn.Module, config: Any, forward: Forward) -> RoutingSpec:
    spec = spec_of(module, config)
    if forward.labels is not None and not (spec.user_close or spec.answer_start):
        raise ValueError(
            "the routing spec knows neither where a user turn closes nor where an answer starts, so training "
            "cannot tell instruction from answer. Pass routing=Routing(...), or moka_modality and "
            "moka_turn from the collator."
        )
    return spec


def spec_of(model: nn.Module, config: Any) -> RoutingSpec:
    """`config.routing`, or else the spec of the processor the model was loaded with (local files first).

    A derived spec is kept in `config.routing` and so saved with the adapter. Raises ValueError where there is no
    processor, or where a modality of the adapter has no placeholder token.
    """
    if config.routing is None:
        config.routing = RoutingSpec.from_pretrained(model, _processor_of(model))
    missing = [m for m in config.modalities[1:] if m not in config.routing.placeholders]
    if missing:
        raise ValueError(
            f"`routing`: no placeholder token found for modality {missing[0]!r}; the spec knows "
            f"{list(config.routing.placeholders)}. Give its token ids in RoutingSpec(placeholders=...), or leave it "
            "out of MokaConfig(modalities=...)."
        )
    return config.routing


def _processor_of(model: nn.Module) -> Any:
    from transformers import AutoProcessor

    name = getattr(getattr(model, "config", None), "name_or_path", "")
    hint = "Pass MokaConfig(routing=RoutingSpec.from_pretrained(model, processor)), or Routing(...) to the forward."
    if not name:
        raise ValueError(f"MokA has no routing spec, and the model's config names no folder or hub id. {hint}")
    try:
        return AutoProcessor.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError):
        pass
    try:
        return AutoProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"MokA has no routing spec, and no processor could be loaded from {name!r}. {hint}") from error


def _columns(routing: Routing, forward: Forward) -> Routing:
    """The rows and columns of a fixed routing that this forward covers."""
    batch, length = forward.shape
    rows, width = routing.shape
    if batch % rows:
        raise ValueError(
            f"`use_routing`: the routing has {rows} rows, the forward {batch}, which is no multiple of it."
        )
    start = forward.cached_length
    if start == 0 and length < width:
        raise ValueError(
            f"`use_routing`: the routing describes {width} positions, the first forward has only {length}. "
            "Pass the routing of this input, or give the whole prompt in one forward."
        )
    if (batch, length, start) == (rows, width, 0):
        return routing

    def fit(values: Tensor) -> Tensor:
        filler = values.new_zeros(rows, max(start + length - width, 0))
        return torch.cat([values, filler], 1)[:, start : start + length].repeat_interleave(batch // rows, 0)

    return Routing(fit(routing.modality), fit(routing.turn), routing.modalities)


def _check_fits(routing: Routing, forward: Forward) -> None:
    if forward.shape and routing.shape != forward.shape:
        raise ValueError(
            f"`routing` describes {list(routing.shape)} tokens, but the input has {list(forward.shape)} "
            "([batch, sequence]). Pass the routing of this very input."
        )


def _ignore_supervised(channel: RoutingChannel, current: dict[str, Routing], forward: Forward, kwargs: dict) -> dict:
    labels = forward.labels
    for adapter, routing in current.items():
        config = channel.configs[adapter]
        if labels is not None and config.interaction != "none" and config.supervised_instruction == "ignore":
            labels = supervision.without_supervised_instruction(labels, routing)
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
    routing, _ = _pop_explicit(channel, kwargs)
    forward = Forward.of(channel.models[0], (), kwargs)
    current = _routings(channel, channel.models[0], adapters, routing, forward)
    return _ignore_supervised(channel, current, forward, kwargs)["labels"]


def _watch(
    channel: RoutingChannel, current: dict[str, Routing], forward: Forward, kwargs: dict
) -> supervision.Watch | None:
    """Where the loss is the caller's, only its gradient shows what it is on."""
    if not forward.is_training or forward.labels is not None or forward.input_ids is None:
        return None
    kept = kwargs.get("logits_to_keep")  # a tensor chooses positions
    return supervision.Watch.of(channel, current, forward.input_ids, 0 if kept is None else kept)
