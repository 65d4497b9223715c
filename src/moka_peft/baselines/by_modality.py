"""The compression of tokens by matrices of their own modality, for rivals that have one A per modality."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from moka_peft.routing import PADDING, Routing
from moka_peft.routing.facts import derived


def compress_apart(x: Tensor, A: Sequence[Tensor], routing: Routing, modalities: int) -> Tensor:
    """A_i x [B, S, len(A), r] of x [B, S, I], 0 where the token is not of modality i; padding is 0 in all.

    What follows the first `modalities` matrices takes every token.
    """
    z = F.linear(x, torch.cat(list(A))).unflatten(-1, (len(A), -1))  # one product: x is read once
    absent = derived(routing, ("absent", len(A), modalities), lambda: _absent(routing, len(A), modalities))
    return z.masked_fill(absent.unsqueeze(-1), 0)


def _absent(routing: Routing, matrices: int, modalities: int) -> Tensor:
    """[B, S, matrices] bool. Raises ValueError where a token's modality has no matrix."""
    modality = routing.modality
    if not torch.compiler.is_compiling() and modality.numel():
        highest = int(routing.on_host()[0].max())
        if highest >= modalities:
            raise ValueError(
                f"`routing` holds modality {highest}, but the adapter has {modalities} (0 is text). Name the integers: "
                "Routing(modality, turn, modalities=(...))."
            )
    others = modality.unsqueeze(-1) != torch.arange(modalities, device=modality.device)
    padding = (modality == PADDING).unsqueeze(-1).expand(-1, -1, matrices - modalities)
    return torch.cat([others, padding], dim=-1)
