"""Ways to run one Linear or one model: the frozen base, twice, and each adapter on it, all with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from per_sample_loop import loop_instead
from torch import Tensor, nn

from moka_peft import Routing, RoutingSpec
from moka_peft.analysis.speed import adapt, forward_backward, kept_bytes, sharing_copy, training_step
from moka_peft.analysis.speed.adapters import routed
from moka_peft.analysis.speed.kept import saved_tensors

LOOP = "per_sample_loop"
BASES = ("base", "base again")


@dataclass(frozen=True)
class Variant:
    """One adapter: a key of ADAPTERS or "per_sample_loop". `upcast`: float32 weights whatever the base's dtype."""

    method: str
    rank: int
    dropout: float = 0.0
    upcast: bool = True

    @property
    def name(self) -> str:
        return f"{self.method} r{self.rank} p{self.dropout:g}" + ("" if self.upcast else " as base")

    def on(self, model: nn.Module, spec: RoutingSpec) -> PeftModel:
        """`model`, changed in place, with this adapter."""
        method = "moka" if self.method == LOOP else self.method
        sizes = {"rank": self.rank, "dropout": self.dropout, "upcast": self.upcast}
        adapted = adapt(model, method, spec, **sizes)  # pyright: ignore
        return loop_instead(adapted) if self.method == LOOP else adapted  # pyright: ignore


@dataclass(frozen=True)
class LayerWork:
    """Forward and backward of one Linear [I] -> [O] in a decoder: `x` [B, S, I], the output's gradient [B, S, O]."""

    linear: nn.Linear
    x: Tensor
    gradient: Tensor
    spec: RoutingSpec
    routing: Routing

    @classmethod
    def of(cls, width: int, out: int, spec: RoutingSpec, routing: Routing, seed: int = 0) -> LayerWork:
        """Random weights and values, on the routing's device."""
        generator, device = torch.Generator().manual_seed(seed), routing.modality.device
        linear = nn.Linear(width, out, bias=False).requires_grad_(False)
        with torch.no_grad():
            linear.weight.copy_(torch.randn(out, width, generator=generator) / width**0.5)
        x = torch.randn(*routing.shape, width, generator=generator).to(device)
        gradient = torch.randn(*routing.shape, out, generator=generator).to(device)
        return cls(linear.to(device), x, gradient, spec, routing)

    def layer(self, variant: Variant | None) -> tuple[nn.Module, Callable[[], Any]]:
        """The layer as a decoder calls it, and the context that it is called in; None: the base."""
        if variant is None:
            return self.linear, nullcontext
        model = variant.on(nn.Sequential(self.linear), self.spec).train()
        layer = model.base_model.model[0]  # pyright: ignore
        if variant.method in ("lora", "dora"):
            return layer, nullcontext
        return layer, lambda: routed(model, self.routing)

    def provider(self, variant: Variant | None) -> Callable[[], None]:
        layer, context = self.layer(variant)
        return forward_backward(layer, self.x, self.gradient, context)

    def kept(self, variant: Variant | None) -> int:
        """Bytes that one layer more keeps for its backward.

        Of two forwards the second's that the first did not save: x, the weights and the plan of the routing, which
        layers share, are not among them.
        """
        layer, context = self.layer(variant)
        x = self.x.detach().requires_grad_()

        def forward() -> Tensor:
            with context():
                return layer(x)

        return kept_bytes(forward, left_out=saved_tensors(forward))


def layer_providers(work: LayerWork, variants: Iterable[Variant]) -> dict[str, Callable[[], None]]:
    """The base, the base again, and every variant."""
    return {name: work.provider(None) for name in BASES} | {v.name: work.provider(v) for v in variants}


def step_providers(
    model: nn.Module, variants: Iterable[Variant], spec: RoutingSpec, inputs: dict[str, Tensor]
) -> dict[str, Callable[[], None]]:
    """A training step of the frozen base, twice, and of every variant; all on `model`'s weights."""
    steps = {name: training_step(sharing_copy(model), inputs) for name in BASES}
    return steps | {v.name: training_step(v.on(sharing_copy(model), spec), inputs) for v in variants}
