"""The adapted layers of a model, whatever the adapter, and the routing of its forwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from moka_peft.routing import RoutingSpec
from moka_peft.tuner import hook
from moka_peft.tuner.channel import ATTRIBUTE, RoutingChannel


@dataclass(frozen=True)
class Reading:
    """What the routing hook has to know of an adapter that tells no modalities apart."""

    modalities: tuple[str, ...]
    routing: RoutingSpec
    interaction: str = "none"
    supervised_instruction: str = "raise"


def adapted_layers(model: nn.Module) -> dict[str, Any]:
    """The layers that carry the adapter, by name inside the base model, in their order: LoRA's, MokA's or a rival's.

    Raises ValueError where there is none, as in a model whose parts alone were trained.
    """
    found = {name: layer for name, layer in base_of(model).named_modules() if isinstance(layer, BaseTunerLayer)}
    if not found:
        raise ValueError(
            f"`model`: {type(model).__name__} holds no adapted layer. Give one with a LoRA or MokA adapter."
        )
    return found


def base_of(model: nn.Module) -> nn.Module:
    """The model that the adapter was put into."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def active_adapter(model: nn.Module) -> str:
    """The name of the adapter that runs. Raises ValueError where it is not exactly one."""
    names = dict.fromkeys(name for layer in adapted_layers(model).values() for name in layer.active_adapters)
    if len(names) != 1:
        raise ValueError(f"`model`: expected one active adapter, got {list(names)}. Choose it with set_adapter(name).")
    return next(iter(names))


def adapter_parameters(layer: nn.Module, adapter: str) -> dict[str, nn.Parameter]:
    """The adapter's own parameters in one layer, by what they are: `lora_A`, `moka_A_text`, `moka_B`, ..."""
    found = {}
    for name, weight in layer.named_parameters():
        container, owner, *rest = *name.split("."), ""
        if container != "base_layer" and owner == adapter:
            found[container if rest in ([""], ["weight", ""]) else f"{container}_{rest[0]}"] = weight
    return found


def check_unmerged(name: str, layer: Any) -> None:
    """Raises ValueError where the base weight holds the adapter, so that the two can not be told apart."""
    if layer.merged:
        raise ValueError(
            f"`model`: the adapter is merged into {name!r}, so that no token can pass without it. "
            "Call model.unmerge_adapter() first."
        )


def describe_adapter(model: nn.Module) -> dict[str, Any]:
    """Which adapter a result was measured on, as JSON data."""
    adapter = active_adapter(model)
    config: Any = getattr(model, "peft_config", {}).get(adapter)
    kind = getattr(config, "peft_type", None)
    told = {"adapter": adapter, "type": None if kind is None else str(getattr(kind, "value", kind))}
    for key in ("r", "lora_alpha", "use_dora", "interaction", "cross_scale"):
        value = getattr(config, key, None)
        told |= {} if value is None else {key: list(value) if isinstance(value, tuple) else value}
    return told | {"layers": len(adapted_layers(model))}


@contextmanager
def routing_of_forwards(model: nn.Module, processor: Any) -> Iterator[RoutingChannel]:
    """Inside, every forward and `generate` of `model` puts its routing into the channel that this gives.

    An adapter with routing has such a channel; around another one, such as LoRA, it is put for the time, with the
    model's spec: `processor` is the model's, or a RoutingSpec. Raises ValueError where the processor gives none.
    """
    base, adapter = base_of(model), active_adapter(model)
    own = base.__dict__.get(ATTRIBUTE)
    if own is not None:
        yield own
        return
    spec = processor if isinstance(processor, RoutingSpec) else RoutingSpec.from_pretrained(base, processor)
    layers = list(adapted_layers(model).values())
    channel = RoutingChannel(configs={adapter: Reading(spec.modalities, spec)}, layers=layers)
    hook.install(base, channel)
    try:
        yield channel
    finally:
        hook.uninstall(base)


def modalities_of(channel: RoutingChannel, adapter: str) -> tuple[str, ...]:
    """The names of the integers in the adapter's routing."""
    configs: Mapping[str, Any] = channel.configs
    return tuple(configs[adapter].modalities)
