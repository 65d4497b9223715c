"""Uni-modal LoRA: every modality has a pair of its own, and nothing is shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from moka_peft.baselines.by_modality import compress_apart
from moka_peft.baselines.rival import RivalConfig, RivalLinear, RivalModel, RivalPeftType
from moka_peft.routing import Routing
from moka_peft.tuner.config import accept_lora_keywords


@accept_lora_keywords
@dataclass
class UniModalLoraConfig(RivalConfig):
    """LoRA's keywords and `modalities`; a pair of rank `r` for each of them."""

    kind = RivalPeftType.UNI_MODAL_LORA


class UniModalLoraLinear(RivalLinear):
    """s B_m A_m x for a token of modality m; 0 at padding.

    Phi-4-multimodal chooses its pair by the kind of request, for all tokens of it; here every token has its own.
    """

    def factor_sizes(self, options: Any, r: int) -> dict[str, tuple[int, int]]:
        A = {f"moka_A_{modality}": (self.in_features, r) for modality in options.modalities}
        return A | {f"moka_B_{modality}": (r, self.out_features) for modality in options.modalities}

    def update(self, adapter: str, x: Tensor, routing: Routing) -> Tensor:
        modalities = self.options[adapter].modalities
        A = [self.factor(f"moka_A_{modality}", adapter, x) for modality in modalities]
        B = [self.factor(f"moka_B_{modality}", adapter, x) for modality in modalities]
        z = compress_apart(x, A, routing, len(modalities)) * self.scaling[adapter]  # [B, S, M, r]
        return F.linear(z.flatten(-2), torch.cat(B, dim=1))


class UniModalLoraModel(RivalModel):
    tuner_layer_cls = UniModalLoraLinear
