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
    """A section `adapter` at another rank, every alpha changed with it so that the scaling stays as it was."""

    def changed(alpha: float) -> float:
        if adapter.get("use_rslora"):
            return alpha * (rank / adapter["r"]) ** 0.5
        return alpha * rank / adapter["r"]  # in this order 14 at rank 7 is 58 at rank 29, not 58.00000000000001

    alphas = {name: changed(alpha) for name, alpha in adapter.get("alpha_pattern", {}).items()}
    own = {"alpha_pattern": alphas} if alphas else {}
    return {**adapter, "r": rank, "lora_alpha": changed(adapter["lora_alpha"]), **own}
