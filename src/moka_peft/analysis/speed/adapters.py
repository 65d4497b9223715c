"""The same base with each adapter on it: equal rank, alpha and dropout, float32 weights, B not zero."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from moka_peft.routing import Routing, RoutingSpec
from moka_peft.tuner import MokaConfig
from moka_peft.tuner.channel import RunningForward, channel_of

DECODER_LINEARS = r"(?!.*(visual|vision|audio)).*\.(q|k|v|o|gate|up|down)_proj"


def _moka(impl: str) -> Callable[..., Any]:
    def configure(sizes: dict[str, Any], spec: RoutingSpec, targets: Any) -> MokaConfig:
        return MokaConfig(routing=spec, modalities=spec.modalities, impl=impl, target_modules=targets, **sizes)

    return configure


def _lora(use_dora: bool) -> Callable[..., Any]:
    def configure(sizes: dict[str, Any], spec: RoutingSpec, targets: Any) -> LoraConfig:
        return LoraConfig(use_dora=use_dora, target_modules=targets or DECODER_LINEARS, **sizes)

    return configure


ADAPTERS: dict[str, Callable[..., Any]] = {
    "lora": _lora(use_dora=False),
    "dora": _lora(use_dora=True),
    "moka": _moka("auto"),
    "moka eager": _moka("eager"),
    "moka triton": _moka("triton"),
    "moka reference": _moka("reference"),
}


def adapt(
    model: nn.Module,
    method: str,
    spec: RoutingSpec,
    *,
    rank: int = 8,
    dropout: float = 0.0,
    upcast: bool = True,
    targets: Any = None,
) -> PeftModel:
    """`model`, changed in place, with an adapter by `method`, a key of ADAPTERS, on the same Linears whichever it is.

    targets: None for the projections of the text decoder's layers. upcast: float32 weights also on a narrower base,
    PEFT's default. alpha is twice the rank; B is random, so that no zero shortens the work. Raises ValueError on a
    method that there is not.
    """
    if method not in ADAPTERS:
        raise ValueError(f"`method`: expected one of {', '.join(ADAPTERS)}, got {method!r}.")
    sizes = {"r": rank, "lora_alpha": 2 * rank, "lora_dropout": dropout, "init_lora_weights": False}
    config = ADAPTERS[method](sizes, spec, targets)
    return get_peft_model(model, config, autocast_adapter_dtype=upcast)  # pyright: ignore


def sharing_copy(model: nn.Module) -> Any:
    """A copy of `model` with modules of its own and the very same weights: adapters on it cost no second base."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


def adapt_linear(
    linear: nn.Linear, method: str, spec: RoutingSpec, *, rank: int, dropout: float = 0.0
) -> tuple[PeftModel, nn.Module]:
    """A model of `linear` alone, whose weights stay shared, with its adapter; and the adapted layer inside."""
    model = adapt(nn.Sequential(linear), method, spec, rank=rank, dropout=dropout, targets=["0"]).train()
    return model, model.base_model.model[0]  # pyright: ignore


@contextmanager
def routed(model: nn.Module, routing: Routing) -> Iterator[None]:
    """The layers of `model` may be called by themselves inside, as a decoder calls them while it runs."""
    with channel_of(model).holding(RunningForward({"default": routing})):
        yield
