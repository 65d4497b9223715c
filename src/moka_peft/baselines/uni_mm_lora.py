"""Uni LoRA + MM LoRA: an A per modality with one B, beside a pair for all tokens; added, or mixed by a gate.

MokA's paper (arXiv 2506.05191) gives only how many matrices these two have, N + 1 A's and 2 B's: the formulas here are
the reading that fits the counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from moka_peft.baselines.by_modality import compress_apart
from moka_peft.baselines.rival import RivalConfig, RivalLinear, RivalModel, RivalPeftType
from moka_peft.routing import Routing
from moka_peft.tuner.config import accept_lora_keywords


@accept_lora_keywords
@dataclass
class UniMmLoraConfig(RivalConfig):
    """LoRA's keywords and `modalities`; `r` is the rank of each of the two updates."""

    kind = RivalPeftType.UNI_MM_LORA
    has_gate: ClassVar[bool] = False


@accept_lora_keywords
@dataclass
class UniMmLoraGateConfig(UniMmLoraConfig):
    """As `UniMmLoraConfig`, with a learned gate in every layer."""

    kind = RivalPeftType.UNI_MM_LORA_GATE
    has_gate: ClassVar[bool] = True


class UniMmLoraLinear(RivalLinear):
    """s B A_m x + s B' A' x for a token of modality m; 0 at padding. A' and B' are `moka_A2` and `moka_B2`.

    With a gate s (1 - g) B A_m x + s g B' A' x, where g = sigmoid(w . x) is the token's own and w is `moka_router`.
    """

    def factor_sizes(self, options: Any, r: int) -> dict[str, tuple[int, int]]:
        names = [*(f"moka_A_{modality}" for modality in options.modalities), "moka_A2"]
        A = {name: (self.in_features, r) for name in names}
        B = {name: (r, self.out_features) for name in ("moka_B", "moka_B2")}
        return A | B | ({"moka_router": (self.in_features, 1)} if options.has_gate else {})

    def update(self, adapter: str, x: Tensor, routing: Routing) -> Tensor:
        options = self.options[adapter]
        names = [*(f"moka_A_{modality}" for modality in options.modalities), "moka_A2"]
        A = [self.factor(name, adapter, x) for name in names]
        z = compress_apart(x, A, routing, len(options.modalities)) * self.scaling[adapter]  # [B, S, M + 1, r]
        own, shared = z[..., :-1, :].sum(-2), z[..., -1, :]
        if options.has_gate:
            g = torch.sigmoid(F.linear(x, self.factor("moka_router", adapter, x)))  # [B, S, 1]
            own, shared = own * (1 - g), shared * g
        B = torch.cat([self.factor(name, adapter, x) for name in ("moka_B", "moka_B2")], dim=1)
        return F.linear(torch.cat([own, shared], dim=-1), B)


class UniMmLoraModel(RivalModel):
    tuner_layer_cls = UniMmLoraLinear
