"""HydraLoRA: one A for every token, and several B's that a router weighs token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from moka_peft.baselines.experts import ExpertsConfig, compressed, expanded, softmax_gates
from moka_peft.baselines.rival import RivalLinear, RivalModel, RivalPeftType
from moka_peft.routing import Routing
from moka_peft.tuner.config import accept_lora_keywords


@accept_lora_keywords
@dataclass
class HydraLoraConfig(ExpertsConfig):
    """LoRA's keywords, `modalities` and `num_experts`: an expert is a B."""

    kind = RivalPeftType.HYDRA_LORA


class HydraLoraLinear(RivalLinear):
    """s sum_i g_i(x) B_i A x with g = softmax(W_g x) (HydraLoRA, arXiv 2404.19245, eq. 3 and 4).

    As in its authors' code: W_g [N, I] reads the layer's input and has no bias, it starts like A, and the softmax is
    in float32. Their code can weigh in a balance loss, which the paper does without, and so does this layer. Two
    things differ: their number of B's comes from clustering the training texts, and their router reads x before
    dropout, this one after it.
    """

    def factor_sizes(self, options: Any, r: int) -> dict[str, tuple[int, int]]:
        heads = options.experts
        B = {f"moka_B_{i}": (r, self.out_features) for i in heads}
        return {"moka_A": (self.in_features, r), **B, "moka_router": (self.in_features, len(heads))}

    def update(self, adapter: str, x: Tensor, routing: Routing) -> Tensor:
        gates = softmax_gates(x, self.factor("moka_router", adapter, x)).to(x.dtype)
        z = compressed(x, [self.factor("moka_A", adapter, x)])  # [B, S, 1, r]
        names = [f"moka_B_{i}" for i in range(gates.shape[-1])]
        return self.scaling[adapter] * expanded(gates.unsqueeze(-1) * z, [self.factor(B, adapter, x) for B in names])


class HydraLoraModel(RivalModel):
    tuner_layer_cls = HydraLoraLinear
