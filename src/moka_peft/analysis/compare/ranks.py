"""The rank at which a method has about as many adapter parameters as another one, counted on the real architecture."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from peft import PeftModel

from moka_peft.training import Recipe
from moka_peft.training.plan.architecture import adapted, base_on


def count_adapter(model: PeftModel) -> int:
    """Parameters of the adapter on a model, without the parts that train in full beside it."""
    prefix: Any = model.base_model.prefix
    return sum(
        weight.numel()
        for name, weight in model.named_parameters()
        if prefix in name and weight.requires_grad and ".modules_to_save." not in name
    )


def adapter_parameters(recipe: Recipe) -> int:
    """Parameters of a recipe's adapter; its model stands on the meta device, and no weights are loaded."""
    return _count_on_meta(recipe.model.model_dump_json(), recipe.adapter.model_dump_json())


@cache
def _count_on_meta(model: str, adapter: str) -> int:
    return count_adapter(adapted(base_on("meta", json.loads(model)), json.loads(adapter), ()))


def nearest_rank(count: Callable[[int], int], budget: int) -> int:
    """The rank, 1 at least, at which `count(rank)` comes nearest to `budget`; it grows by the same number per rank."""
    first = count(1)
    per_rank = count(2) - first
    return max(1, round(1 + (budget - first) / per_rank))


def with_rank(adapter: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """A section `adapter` at another rank, `lora_alpha` changed with it so that the scaling stays as it was."""
    growth = rank / adapter["r"]
    growth = growth**0.5 if adapter.get("use_rslora") else growth
    return {**adapter, "r": rank, "lora_alpha": adapter["lora_alpha"] * growth}
