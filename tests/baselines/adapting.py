"""Every method of a recipe on a tiny model, its weights far from where they begin."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel, get_peft_model
from peft.utils import PeftType
from torch import Tensor, nn

from moka_peft import RoutingSpec
from moka_peft.training.methods import CONFIGS, PEFTS_OWN, build_config

METHODS = list(CONFIGS)
OURS = [method for method in METHODS if method not in PEFTS_OWN]
"""Those that read a routing; LoRA and DoRA are PEFT's, and stand in the matrix for what it asks of an adapter."""

MODALITIES = ("text", "visual", "audio")
TARGETS = ("q_proj", "v_proj", "down_proj")
RANDOM = ("moka_A", "moka_B", "moka_router", "moka_gate", "lora_A", "lora_B")
"""Names that parameters of adapters begin with; DoRA's magnitudes stay those of its base."""


def config_of(method: str, spec: RoutingSpec | None, **settings: Any) -> Any:
    """The config of a method; `settings` that it does not know are left out, as of a recipe."""
    known = {"r": 3, "lora_alpha": 6, "modalities": MODALITIES, "target_modules": list(TARGETS), **settings}
    return build_config(method, known, routing=spec)


def kind_of(method: str) -> str:
    """The peft type of a method, as its folder names it."""
    return str(config_of(method, None).peft_type.value)


def is_pefts_own(kind: str) -> bool:
    return kind in set(PeftType)


def randomise(model: nn.Module, seed: int = 1) -> None:
    """Weights by the names of their places, so that two models with the same adapter agree."""
    for name, weight in adapter_weights(model):
        generator = torch.Generator().manual_seed(seed + sum(name.encode()))
        if any(f".{start}" in name for start in RANDOM):
            weight.data = 0.3 * torch.randn(weight.shape, generator=generator).to(weight.dtype)


def adapt(base: nn.Module, method: str, spec: RoutingSpec, **settings: Any) -> PeftModel:
    """`base` with a method's adapter on it, random and large, ready to answer."""
    model = get_peft_model(base, config_of(method, spec, **settings))
    randomise(model)
    return model.eval()


class OneLinear(nn.Module):
    """An embedding and the one Linear that carries an adapter: what a layer computes is all that it computes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(100, 16)
        self.q_proj = nn.Linear(16, 12)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.q_proj(self.embed(input_ids))


def adapter_weights(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(n, p) for n, p in model.named_parameters() if ".moka_" in n or ".lora_" in n]


def adapted_layers(model: nn.Module) -> list[Any]:
    """The adapted Linears."""
    return [module for module in model.modules() if hasattr(module, "base_layer") and hasattr(module, "scaling")]


def logits_of(model: Any, ids: Tensor, **inputs: Any) -> Tensor:
    with torch.no_grad():
        return model(ids, **inputs).logits
