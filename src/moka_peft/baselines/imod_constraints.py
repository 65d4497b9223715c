"""IMoD's two constraints on A, as losses of one layer. Their gradient is all that is used of them.

With A_T = A * (M_t + M_s) and A_O = A * (M_o + M_s), text tokens x_t and other modalities' x_o:

decoupling   L = ||A_T x_t - A x_t||^2 + ||A_O x_o - A x_o||^2 = ||(A * M_o) x_t||^2 + ||(A * M_t) x_o||^2
alignment    L = 1 - (c_t + c_o) cos(mean s_t, mean s_o)    with s = (A * M_s) x and c = mean_i cos(s_i, mean s)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from moka_peft.baselines.imod_parts import OTHER, SHARED, TEXT
from moka_peft.ops.update import without_autocast
from moka_peft.routing import Routing
from moka_peft.routing.facts import derived

LEAST_NORM = 1e-8


def constraint(A: Tensor, parts: Tensor, x: Tensor, routing: Routing, *, decoupling: float, alignment: float) -> Tensor:
    """The weighted sum of both losses, a scalar; A [r, I], parts [r, I] int8, x [B, S, I] without gradient.

    Each is a mean over the tokens of a sequence, then over the sequences that hold what it compares; padding is in
    none. 0 where there are none.
    """
    masked = torch.cat([A.masked_fill(parts != part, 0) for part in (OTHER, TEXT, SHARED)])
    z = F.linear(x, masked)
    z = z.to(torch.promote_types(z.dtype, torch.float32)).unflatten(-1, (3, -1))  # [B, S, 3, r]
    weights = derived(routing, ("text and others", z.dtype), lambda: _weights(routing, z.dtype))  # [B, 2, S]
    loss = z.new_zeros(())
    with without_autocast(z):  # a cosine near 1 has no gradient left in bfloat16
        if decoupling:
            loss = loss + decoupling * _decoupling(z[..., :2, :], weights)
        if alignment:
            loss = loss + alignment * _alignment(z[..., 2, :], weights)
    return loss


def _weights(routing: Routing, dtype: torch.dtype) -> Tensor:
    """[B, 2, S]: 1 / their number at a sequence's text tokens, and the same for those of other modalities."""
    is_of = torch.stack([routing.modality == 0, routing.is_media], dim=1).to(dtype)
    return is_of / is_of.sum(-1, keepdim=True).clamp(min=1)


def _decoupling(stray: Tensor, weights: Tensor) -> Tensor:
    """Of stray [B, S, 2, r]: what the others' elements make of each token, and what text's elements do."""
    energy = stray.square().sum(-1).transpose(1, 2)  # [B, 2, S]
    present = weights.any(-1).sum(0).clamp(min=1)  # [2] sequences that hold text, and media
    return ((weights * energy).sum((0, 2)) / present).sum()


def _alignment(s: Tensor, weights: Tensor) -> Tensor:
    """Of s [B, S, r]: how far text's and the other modalities' means are from one direction."""
    both = weights.any(-1).all(-1)  # [B]
    direction = F.normalize(weights @ s, dim=-1, eps=LEAST_NORM)  # [B, 2, r] of the means
    mean = weights @ F.normalize(s, dim=-1, eps=LEAST_NORM)
    concentration = (direction * mean).sum((1, 2))
    loss = 1 - concentration * (direction[:, 0] * direction[:, 1]).sum(-1)
    return (loss * both).sum() / both.sum().clamp(min=1)
