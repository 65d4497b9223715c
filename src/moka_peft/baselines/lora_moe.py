"""LoRAMoE: pairs of matrices that a router weighs token by token, and a loss that spreads the modalities over them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moka_peft.baselines.auxiliary import with_loss
from moka_peft.baselines.experts import ExpertsConfig, compressed, expanded, softmax_gates
from moka_peft.baselines.rival import RivalLinear, RivalModel, RivalPeftType
from moka_peft.ops.update import without_autocast
from moka_peft.routing import Routing
from moka_peft.tuner.config import accept_lora_keywords


@accept_lora_keywords
@dataclass
class LoraMoeConfig(ExpertsConfig):
    """LoRA's keywords, `modalities` and `num_experts`: an expert is a pair.

    `balance_weight`: beta, the factor of the balance loss in every layer; 0: none. `balance_contrast`: delta in
    [0, 1), how far apart the loss holds the experts' shares, see `balance_loss`; 0: equal shares for all.
    """

    kind = RivalPeftType.LORA_MOE
    balance_weight: float = 0.1
    balance_contrast: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.balance_weight) and self.balance_weight >= 0):
            raise ValueError(f"`balance_weight`: expected a finite number >= 0, got {self.balance_weight!r}.")
        if not 0 <= self.balance_contrast < 1:
            raise ValueError(f"`balance_contrast`: expected a number in [0, 1), got {self.balance_contrast!r}.")


def balance_loss(gates: Tensor, modality: Tensor, num_modalities: int, contrast: float) -> Tensor:
    """LoRAMoE's localized balance loss, a scalar, of gates [B, S, N] at tokens of `modality` [B, S] (-1: padding).

    Importance Q[m, n]: the mean gate of expert n over the tokens of modality m. Coefficients I[m, n]: 1 - contrast
    where expert n is of type m, else 1 + contrast. With Z = I * Q over the modalities that are there, the loss is the
    variance of Z's entries over their squared mean: 0 where every expert's share of its own modality is
    (1 + contrast) / (1 - contrast) times its share of another.

    From LoRAMoE's authors' code are Q, I, Z and the quotient, whose squared mean makes the loss indifferent to the
    scale of Q. The paper (arXiv 2312.09979) is known here from what others tell of it: it divides by the mean. Assumed,
    because there the types are two kinds of tasks that samples are labelled with: that the types are the modalities,
    expert n being of type n modulo their number; that Q averages over a batch's tokens of a modality, where theirs
    sums over a sample's; and which coefficient is the larger. The paper is told to give 1 + contrast to an expert's own
    type, so that the least variance leaves it the *smaller* share: with two types that is the same up to their names,
    with more it would keep every expert away from its modality. The variance is that of all entries, not an estimate.
    """
    modalities = torch.arange(num_modalities, device=gates.device)
    is_of = (modality.unsqueeze(-1) == modalities).to(gates.dtype)  # [B, S, M], all 0 at padding
    count = is_of.sum((0, 1)).unsqueeze(-1)  # [M, 1]
    with without_autocast(gates):  # equal shares differ by what bfloat16 rounds away
        importance = torch.einsum("bsm,bsn->mn", is_of, gates) / count.clamp(min=1)
    types = torch.arange(gates.shape[-1], device=gates.device) % num_modalities
    is_own = (types == modalities.unsqueeze(-1)).to(gates.dtype)
    Z = importance * (1 + contrast - 2 * contrast * is_own)
    is_there = (count > 0).to(gates.dtype).expand_as(Z)
    entries = is_there.sum().clamp(min=1)
    mean = (Z * is_there).sum() / entries
    variance = ((Z - mean).square() * is_there).sum() / entries
    return variance / mean.square().clamp(min=1e-10)


class LoraMoeLinear(RivalLinear):
    """s sum_i g_i(x) B_i A_i x with g = softmax(W_g x), and `balance_weight` * `balance_loss` while it trains.

    As in LoRAMoE's authors' code: W_g [N, I] reads the layer's input and has no bias, it starts like the A's, the
    softmax is in float32, and the losses of all layers add up. Their defaults for the loss are no guide (the script
    that they released has it off), so those here are a choice. Their router reads x before dropout, this one after it.
    """

    def factor_sizes(self, options: Any, r: int) -> dict[str, tuple[int, int]]:
        experts = options.experts
        A = {f"moka_A_{i}": (self.in_features, r) for i in experts}
        B = {f"moka_B_{i}": (r, self.out_features) for i in experts}
        return {**A, **B, "moka_router": (self.in_features, len(experts))}

    def update(self, adapter: str, x: Tensor, routing: Routing) -> Tensor:
        gates = softmax_gates(x, self.factor("moka_router", adapter, x))  # [B, S, N]
        experts = range(gates.shape[-1])
        z = compressed(x, [self.factor(f"moka_A_{i}", adapter, x) for i in experts])  # [B, S, N, r]
        z = gates.to(x.dtype).unsqueeze(-1) * z
        y = self.scaling[adapter] * expanded(z, [self.factor(f"moka_B_{i}", adapter, x) for i in experts])
        if not self.is_balanced(adapter):
            return y
        options = self.options[adapter]
        loss = balance_loss(gates, routing.modality, len(options.modalities), options.balance_contrast)
        return with_loss(y, options.balance_weight * loss)

    def is_balanced(self, adapter: str) -> bool:
        """Whether the loss takes part: where the adapter's own weights train, not where gradients pass it by."""
        trains = self.training and torch.is_grad_enabled() and self._weight("moka_router", adapter).requires_grad
        return trains and self.options[adapter].balance_weight > 0


class LoraMoeModel(RivalModel):
    tuner_layer_cls = LoraMoeLinear
