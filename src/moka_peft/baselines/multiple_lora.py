"""Multiple LoRA: several pairs of matrices, and every token passes through all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from moka_peft.baselines.experts import ExpertsConfig, compressed, expanded
from moka_peft.baselines.rival import RivalLinear, RivalModel, RivalPeftType
from moka_peft.routing import Routing
from moka_peft.tuner.config import accept_lora_keywords


@accept_lora_keywords
@dataclass
class MultipleLoraConfig(ExpertsConfig):
    """LoRA's keywords, `modalities` and `num_experts`: an expert is a pair."""

    kind = RivalPeftType.MULTIPLE_LORA


class MultipleLoraLinear(RivalLinear):
    """s sum_i B_i A_i x, the same for every token."""

    def factor_sizes(self, options: Any, r: int) -> dict[str, tuple[int, int]]:
        pairs = options.experts
        A = {f"moka_A_{i}": (self.in_features, r) for i in pairs}
        return A | {f"moka_B_{i}": (r, self.out_features) for i in pairs}

    def update(self, adapter: str, x: Tensor, routing: Routing) -> Tensor:
        A, B = ([self.factor(name, adapter, x) for name in names] for names in zip(*self.pairs(adapter), strict=True))
        return self.scaling[adapter] * expanded(compressed(x, A), B)

    def is_one_weight(self, adapter: str) -> bool:
        return True

    def text_update(self, adapter: str) -> Tensor:
        return sum(self.product(adapter, A, B) for A, B in self.pairs(adapter))  # pyright: ignore[reportReturnType]

    def pairs(self, adapter: str) -> list[tuple[str, str]]:
        """Names of the matrices (A_i, B_i)."""
        names = list(self.factor_sizes(self.options[adapter], self.r[adapter]))
        return list(zip(names[: len(names) // 2], names[len(names) // 2 :], strict=True))


class MultipleLoraModel(RivalModel):
    tuner_layer_cls = MultipleLoraLinear
