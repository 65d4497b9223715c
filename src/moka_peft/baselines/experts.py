"""What rivals with several experts share: how many there are, and their sums as one matrix product in and one out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from moka_peft.baselines.rival import RivalConfig
from moka_peft.tuner.config import accept_lora_keywords


@accept_lora_keywords
@dataclass
class ExpertsConfig(RivalConfig):
    """`num_experts`: how many experts; None: one per modality, as MokA's paper counts them (arXiv 2506.05191)."""

    num_experts: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        count = self.num_experts
        if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count <= 0):
            raise ValueError(f"`num_experts`: expected an integer > 0 or None, got {count!r}.")

    @property
    def experts(self) -> range:
        """The experts' numbers; for a config that names its modalities or how many experts there are."""
        return range(self.num_experts or len(self.modalities or ()))


def compressed(x: Tensor, A: Sequence[Tensor]) -> Tensor:
    """A_i x of every expert, [B, S, N, r], from x [B, S, I] and N matrices [r, I]."""
    return F.linear(x, torch.cat(list(A))).unflatten(-1, (len(A), -1))


def softmax_gates(x: Tensor, router: Tensor) -> Tensor:
    """softmax(W_g x) [B, S, N], in float32 at least, from x [B, S, I] and W_g [N, I]."""
    return F.linear(x, router).softmax(-1, dtype=torch.promote_types(x.dtype, torch.float32))


def expanded(z: Tensor, B: Sequence[Tensor]) -> Tensor:
    """sum_i B_i z_i [B, S, O], from z [B, S, N, r] and N matrices [O, r]."""
    return F.linear(z.flatten(-2), torch.cat(list(B), dim=1))
