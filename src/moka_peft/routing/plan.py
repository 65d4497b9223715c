"""Who attends to whom, as index tensors: derived once from a Routing and shared by all layers of a forward."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .routing import Routing


@dataclass(frozen=True, eq=False)
class AttentionPlan:
    """The queries and keys of one forward, packed to the left of each row.

    `query` [G, Q] and `key` [G, K]: columns of the sequence. `allowed` [G, Q, K] bool: may q attend to k.
    `bias` [G, Q, K] float32: the same, as what to add to the scores. `has_key` [G, Q] bool.
    `hole` [G, Q]: how many zero keys the contiguous span adds for a query, else None.
    G is the batch, or batch x media modalities where every modality is normalised by itself.
    """

    query: Tensor
    key: Tensor
    allowed: Tensor
    bias: Tensor
    has_key: Tensor
    hole: Tensor | None = None


def media_plan(routing: Routing, *, contiguous: bool = False) -> AttentionPlan:
    """Media tokens attend to the instruction of their own turn and sample. G = batch."""
    return _cached(routing, ("media", contiguous), lambda: _media_plan(routing, contiguous))


def text_plan(routing: Routing, media_modalities: int) -> AttentionPlan:
    """Instruction tokens attend to the media of their turn, one group per modality. G = batch * media modalities."""
    return _cached(routing, ("text", media_modalities), lambda: _text_plan(routing, media_modalities))


def has_media(routing: Routing) -> bool:
    """Whether any token is media; read from the device once per Routing. In a compiled graph always: it fits all."""
    if torch.compiler.is_compiling():
        return True
    if "has_media" not in routing._derived:
        routing._derived["has_media"] = bool(routing.is_media.any())
    return routing._derived["has_media"]


def _cached(routing: Routing, key: tuple, build):
    if torch.compiler.is_compiling():
        return build()
    key = (*key, torch.is_inference_mode_enabled())  # tensors made under inference_mode cannot be trained with
    if key not in routing._derived:
        routing._derived[key] = build()
    return routing._derived[key]


def _media_plan(routing: Routing, contiguous: bool) -> AttentionPlan:
    query, query_real = _packed(routing.is_media & (routing.turn > 0))
    key, key_real = _packed(routing.is_instruction)
    query_turn, key_turn = routing.turn.gather(1, query), routing.turn.gather(1, key)
    allowed = _same_turn(query_turn, query_real, key_turn, key_real)
    hole = _holes(allowed, key, routing.shape[1]) if contiguous else None
    return AttentionPlan(query, key, allowed, _bias(allowed), allowed.any(-1), hole)


def _text_plan(routing: Routing, media_modalities: int) -> AttentionPlan:
    modality = torch.arange(1, media_modalities + 1, device=routing.modality.device).view(1, -1, 1)
    is_key = (routing.modality.unsqueeze(1) == modality) & (routing.turn > 0).unsqueeze(1)  # [B, N, S]
    key, key_real = _packed(is_key.flatten(0, 1))  # [B*N, K]
    query, query_real = _packed(routing.is_instruction)
    turn = routing.turn.repeat_interleave(media_modalities, 0)
    query = query.repeat_interleave(media_modalities, 0)
    query_real = query_real.repeat_interleave(media_modalities, 0)
    allowed = _same_turn(turn.gather(1, query), query_real, turn.gather(1, key), key_real)
    return AttentionPlan(query, key, allowed, _bias(allowed), allowed.any(-1))


def _packed(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Columns where `mask` [G, S] holds, packed to the left, and which of them are real; both [G, N], N >= 1.

    One device sync reads N; under torch.compile N = S, so that shapes stay static.
    """
    real, columns = mask.sort(dim=1, descending=True, stable=True)
    if not torch.compiler.is_compiling():
        longest = max(int(mask.sum(1).max()), 1)
        real, columns = real[:, :longest], columns[:, :longest]
    return columns, real


def _same_turn(query_turn: Tensor, query_real: Tensor, key_turn: Tensor, key_real: Tensor) -> Tensor:
    same = query_turn.unsqueeze(2) == key_turn.unsqueeze(1)
    return same & query_real.unsqueeze(2) & key_real.unsqueeze(1)  # [G, Q, K]


def _bias(allowed: Tensor) -> Tensor:
    """0 where allowed, else so low that softmax gives 0; finite, because a row may have no key."""
    return torch.zeros(allowed.shape, device=allowed.device).masked_fill_(~allowed, -1e30)


def _holes(allowed: Tensor, key: Tensor, length: int) -> Tensor:
    """Positions between a query's first and last key that are not keys: [G, Q]."""
    columns = key.unsqueeze(1)
    first = torch.where(allowed, columns, length).amin(-1)
    last = torch.where(allowed, columns, -1).amax(-1)
    return (last - first + 1 - allowed.sum(-1)).clamp(min=0)


__all__ = ["AttentionPlan", "has_media", "media_plan", "text_plan"]
