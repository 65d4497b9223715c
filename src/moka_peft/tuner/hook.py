"""The hook on the model's root: finds the routing of each forward and puts it into the channel."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from moka_peft.routing import Routing, RoutingSpec, route

from . import guards
from .channel import ATTRIBUTE, FixedRouting, RoutingChannel, use_routing

CONSUMED = ("routing", "moka_modality", "moka_turn", "allow_open_turn")


def install(model: nn.Module, channel: RoutingChannel) -> None:
    """Puts the hook on `model`, its inner base model and `generate`; once, however often it is called."""
    setattr(model, ATTRIBUTE, channel)
    if channel.hooks:
        return
    inner = getattr(model, "base_model", model)
    for module in {id(m): m for m in (model, inner) if isinstance(m, nn.Module)}.values():
        channel.hooks.append(module.register_forward_pre_hook(partial(_open, channel), with_kwargs=True))
        channel.hooks.append(module.register_forward_hook(partial(_close, channel), always_call=True))
    if callable(getattr(model, "generate", None)):
        model.__dict__["generate"] = partial(_generate, model)


def uninstall(model: nn.Module) -> None:
    """Takes the hook off again."""
    channel = model.__dict__.pop(ATTRIBUTE, None)
    if channel is None:
        return
    for handle in channel.hooks:
        handle.remove()
    channel.hooks.clear()
    model.__dict__.pop("generate", None)


def _generate(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """`generate` that also takes explicit routing and records the prompt's length."""
    channel = model.__dict__[ATTRIBUTE]
    routing, allow_open = _pop_explicit(channel, kwargs)
    prompt = next((p for p in (*args[:1], kwargs.get("input_ids"), kwargs.get("inputs")) if _is_ids(p)), None)
    prompt = prompt if prompt is not None else kwargs.get("inputs_embeds")
    previous, channel.prompt_length = channel.prompt_length, None if prompt is None else prompt.shape[1]
    fixed = channel.fixed or FixedRouting(None)
    try:
        with use_routing(model, routing or fixed.routing, allow_open_turn=allow_open or fixed.allow_open_turn):
            return type(model).generate(model, *args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
    finally:
        channel.prompt_length = previous


def _close(channel: RoutingChannel, module: nn.Module, *_: Any) -> None:
    if channel.owner is module:
        channel.current = channel.owner = None


def _open(channel: RoutingChannel, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    if channel.owner is not None:  # an inner module of a forward that is already routed
        return None
    if getattr(module, "_is_replica", False):
        raise RuntimeError("MokA does not run under torch.nn.DataParallel. Use one process per device (torchrun).")
    routing, allow_open = _pop_explicit(channel, kwargs)
    adapters = channel.active_adapters()
    if not adapters:
        return args, kwargs
    forward = guards.Forward.of(module, args, kwargs)
    if channel.fixed is not None:
        allow_open = allow_open or channel.fixed.allow_open_turn
        if routing is None and channel.fixed.routing is not None:
            routing = _columns(channel.fixed.routing, forward)
    if routing is not None:
        _check_fits(routing, forward)
    current = {a: _routing_for(channel, module, a, routing, forward) for a in adapters}
    if not torch.compiler.is_compiling():
        guards.check(channel, current, forward, allow_open)
    kwargs = _ignore_supervised(channel, current, forward, kwargs)
    if module.training and torch.is_grad_enabled():
        channel.bind_checkpoints()
    channel.current, channel.owner = current, module
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


def _routing_for(
    channel: RoutingChannel, module: nn.Module, adapter: str, explicit: Routing | None, forward: guards.Forward
) -> Routing:
    config = channel.configs[adapter]
    if explicit is not None:
        return explicit.renamed(config.modalities)
    if forward.input_ids is None:
        raise ValueError(
            "MokA found no `input_ids` to route by. Pass routing=Routing(...) to the forward, or wrap the call in "
            "use_routing(model, routing)."
        )
    spec = spec_of(module, config)
    if forward.labels is not None and not (spec.user_close or spec.answer_start):
        raise ValueError(
            "the routing spec knows neither where a user turn closes nor where an answer starts, so training "
            "cannot tell instruction from answer. Pass routing=Routing(...), or moka_modality and "
            "moka_turn from the collator."
        )
    routing = route(forward.input_ids, spec, forward.attention_mask, prompt_length=channel.prompt_length)
    return routing.renamed(config.modalities)


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


def _columns(routing: Routing, forward: guards.Forward) -> Routing:
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


def _check_fits(routing: Routing, forward: guards.Forward) -> None:
    if forward.shape and routing.shape != forward.shape:
        raise ValueError(
            f"`routing` describes {list(routing.shape)} tokens, but the input has {list(forward.shape)} "
            "([batch, sequence]). Pass the routing of this very input."
        )


def _ignore_supervised(
    channel: RoutingChannel, current: dict[str, Routing], forward: guards.Forward, kwargs: dict
) -> dict:
    labels = forward.labels
    for adapter, routing in current.items():
        config = channel.configs[adapter]
        if labels is not None and config.interaction != "none" and config.supervised_instruction == "ignore":
            labels = guards.without_supervised_instruction(labels, routing)
    return kwargs if labels is forward.labels else {**kwargs, "labels": labels}


def _is_ids(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 2 and not value.is_floating_point()
