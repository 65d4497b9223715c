"""The sums over experts that several rivals share, as one matrix product in and one out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def compressed(x: Tensor, A: Sequence[Tensor]) -> Tensor:
    """A_i x of every expert, [B, S, N, r], from x [B, S, I] and N matrices [r, I]."""
    return F.linear(x, torch.cat(list(A))).unflatten(-1, (len(A), -1))


def softmax_gates(x: Tensor, router: Tensor) -> Tensor:
    """softmax(W_g x) [B, S, N], in float32 at least, from x [B, S, I] and W_g [N, I]."""
    return F.linear(x, router).softmax(-1, dtype=torch.promote_types(x.dtype, torch.float32))


def expanded(z: Tensor, B: Sequence[Tensor]) -> Tensor:
    """sum_i B_i z_i [B, S, O], from z [B, S, N, r] and N matrices [O, r]."""
    return F.linear(z.flatten(-2), torch.cat(list(B), dim=1))
