"""The same base with each adapter on it: equal rank, alpha and dropout, the same Linears, B not zero."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from moka_peft.routing import Routing, RoutingSpec
from moka_peft.tuner import MokaConfig
from moka_peft.tuner.channel import RunningForward, channel_of
from moka_peft.tuner.targets import find_adaptable

ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"use_dora": True},
    "moka": {"impl": "auto"},
    "moka eager": {"impl": "eager"},
    "moka triton": {"impl": "triton"},
    "moka reference": {"impl": "reference"},
}


def adapt(
    model: nn.Module, method: str, spec: RoutingSpec, *, rank: int = 8, dropout: float = 0.0, upcast: bool = True
) -> PeftModel:
    """`model`, changed in place, with an adapter by `method`, a key of ADAPTERS, on the projections of its decoder.

    Of a module without a decoder on all Linears. upcast: float32 weights also on a narrower base, PEFT's default.
    alpha is twice the rank; B is random, so that no zero shortens the work. Raises ValueError on a method that there
    is not.
    """
    if method not in ADAPTERS:
        raise ValueError(f"`method`: expected one of {', '.join(ADAPTERS)}, got {method!r}.")
    sizes = {"r": rank, "lora_alpha": 2 * rank, "lora_dropout": dropout, "init_lora_weights": False}
    of_moka = {"routing": spec, "modalities": spec.modalities}
    if method.startswith("moka"):
        config: Any = MokaConfig(**sizes, **of_moka, **ADAPTERS[method])
    else:
        config = LoraConfig(**sizes, **ADAPTERS[method], target_modules=_linears(model, MokaConfig(**of_moka)))
    return get_peft_model(model, config, autocast_adapter_dtype=upcast)  # pyright: ignore


def _linears(model: nn.Module, config: MokaConfig) -> list[str]:
    """Full names of what MokA adapts."""
    inside = find_adaptable(model, config)
    return sorted(name for name in inside if name.rsplit(".", 1)[-1] in (config.target_modules or ()))


def sharing_copy(model: nn.Module) -> Any:
    """A copy of `model` with modules of its own and the very same weights: adapters on it cost no second base."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


@contextmanager
def routed(model: nn.Module, routing: Routing) -> Iterator[None]:
    """The layers of `model` may be called by themselves inside, as a decoder calls them while it runs."""
    with channel_of(model).holding(RunningForward({"default": routing})):
        yield
