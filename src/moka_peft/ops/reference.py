"""The paper as loops over samples and tokens: slow, any dtype, the oracle of every faster implementation.

For a token t of modality m(t), rank r, s = scaling (MokA, arXiv 2506.05191):

    z_t = A_m(t) x_t
    c_t = softmax_k( z_t . z_k / sqrt(r) ) z_k     k over the instruction tokens of t's turn, for media tokens t
    u_t = z_t + lambda_m(t) c_t  (media)           u_t = z_t  (text)
    delta_t = s B u_t
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from moka_peft.routing import PADDING, TEXT, Routing


def moka_delta(
    x: Tensor,
    A: Tensor,
    B: Tensor,
    routing: Routing,
    *,
    scaling: float,
    cross_scale: Sequence[float],
    interaction: str,
    scale_before_attention: bool,
    instruction_span: str,
) -> Tensor:
    """[B, S, O] from x [B, S, I], A [M, r, I] and B [O, r]; `cross_scale` holds one lambda per media modality."""
    before, after = (scaling, 1.0) if scale_before_attention else (1.0, scaling)
    rows = []
    for sample in range(x.shape[0]):
        modality, turn = routing.modality[sample].tolist(), routing.turn[sample].tolist()
        zero = x.new_zeros(A.shape[1])
        z = [zero if m == PADDING else before * (A[m] @ x[sample, t]) for t, m in enumerate(modality)]
        u = [
            z_t + _interact(t, z, modality, turn, cross_scale, interaction, instruction_span) for t, z_t in enumerate(z)
        ]
        rows.append(torch.stack([after * (B @ u_t) for u_t in u]))
    return torch.stack(rows)


def _interact(
    t: int,
    z: list[Tensor],
    modality: list[int],
    turn: list[int],
    cross_scale: Sequence[float],
    interaction: str,
    instruction_span: str,
) -> Tensor:
    """What token t receives from other tokens, lambda included; zeros where it receives nothing."""
    nothing = torch.zeros_like(z[t])
    if interaction == "none" or turn[t] == 0:
        return nothing
    if interaction == "text_query":
        return sum((_from_media(t, m, z, modality, turn, lam) for m, lam in enumerate(cross_scale, 1)), nothing)
    if modality[t] <= TEXT:
        return nothing
    keys = [k for k in range(len(z)) if modality[k] == TEXT and turn[k] == turn[t]]
    if not keys:
        return nothing
    lam = cross_scale[modality[t] - 1]
    if interaction == "mean":
        return lam * torch.stack([z[k] for k in keys]).mean(0)
    if instruction_span == "contiguous":
        span = range(keys[0], keys[-1] + 1)
        return lam * _attend(z[t], [z[k] if k in keys else nothing for k in span])
    return lam * _attend(z[t], [z[k] for k in keys])


def _from_media(t: int, m: int, z: list[Tensor], modality: list[int], turn: list[int], lam: float) -> Tensor:
    keys = [z[k] for k in range(len(z)) if modality[k] == m and turn[k] == turn[t]]
    if modality[t] != TEXT or not keys:
        return torch.zeros_like(z[t])
    return lam * _attend(z[t], keys)


def _attend(query: Tensor, keys: list[Tensor]) -> Tensor:
    stacked = torch.stack(keys)
    return torch.softmax(stacked @ query / math.sqrt(query.shape[0]), 0) @ stacked
