"""The delta of an adapted Linear in batched torch: the default implementation.

All A's are applied in one stacked matmul, which reads x once; each token keeps the slice of its own modality.
Attention runs over packed media and instruction tokens in rank space. Equations: see `reference.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from moka_peft.routing import Routing
from moka_peft.routing.plan import AttentionPlan, media_plan, text_plan


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
    z = project(x, A, routing)
    if scale_before_attention:
        z = z * scaling
    u = interact(z, routing, cross_scale, interaction, instruction_span)
    if not scale_before_attention:
        u = u * scaling
    return F.linear(u, B)


def project(x: Tensor, A: Tensor, routing: Routing) -> Tensor:
    """z [B, S, r]: every token compressed by its own modality's A; 0 at padding."""
    modalities, rank, _ = A.shape
    z = F.linear(x, A.flatten(0, 1)).unflatten(-1, (modalities, rank))  # [B, S, M, r]
    own = routing.modality.clamp(min=0)[..., None, None].expand(-1, -1, 1, rank)
    z = z.gather(2, own).squeeze(2)
    return z.masked_fill((routing.modality < 0).unsqueeze(-1), 0)


def interact(
    z: Tensor, routing: Routing, cross_scale: Sequence[float], interaction: str, instruction_span: str
) -> Tensor:
    """u [B, S, r]: z plus what each token receives from the other side of its turn."""
    if interaction == "none":
        return z
    if interaction == "text_query":
        return _text_query(z, routing, cross_scale)
    plan = media_plan(routing, contiguous=instruction_span == "contiguous" and interaction != "mean")
    lam = z.new_tensor([0.0, *cross_scale])[routing.modality.gather(1, plan.query).clamp(min=0)]
    queries, keys = _rows(z, plan.query), _rows(z, plan.key)
    received = _mean(keys, plan) if interaction == "mean" else _attend(queries, keys, plan)
    return _add_rows(z, plan.query, received * lam.unsqueeze(-1))


def _text_query(z: Tensor, routing: Routing, cross_scale: Sequence[float]) -> Tensor:
    media = len(cross_scale)
    plan = text_plan(routing, media)
    grouped = z.repeat_interleave(media, 0)  # [B*N, S, r]
    received = _attend(_rows(grouped, plan.query), _rows(grouped, plan.key), plan)
    lam = z.new_tensor(cross_scale).view(1, media, 1, 1)
    received = (received.unflatten(0, (-1, media)) * lam).sum(1)  # [B, Q, r]
    return _add_rows(z, plan.query[::media], received)


def _attend(queries: Tensor, keys: Tensor, plan: AttentionPlan) -> Tensor:
    """softmax(q k / sqrt r) k over the allowed keys, 0 where there are none: [G, Q, r]. In fp32 or wider."""
    wide = torch.promote_types(keys.dtype, torch.float32)
    q, k = queries.to(wide), keys.to(wide)
    with torch.autocast(q.device.type, enabled=False):  # in fp16 the bias is -inf: no gradient where there is no key
        scores = torch.baddbmm(plan.bias.to(wide), q, k.transpose(1, 2), alpha=1 / math.sqrt(q.shape[-1]))
        if plan.hole is not None:  # n zero keys together weigh n exp(0)
            scores = torch.cat([scores, plan.hole.to(scores.dtype).log().unsqueeze(-1)], -1)
        received = torch.softmax(scores, -1)[..., : k.shape[1]] @ k
    return received.masked_fill(~plan.has_key.unsqueeze(-1), 0).to(keys.dtype)


def _mean(keys: Tensor, plan: AttentionPlan) -> Tensor:
    count = plan.allowed.sum(-1, keepdim=True).clamp(min=1)
    return (plan.allowed.to(keys.dtype) / count.to(keys.dtype)) @ keys


def _rows(z: Tensor, index: Tensor) -> Tensor:
    return z.gather(1, index.unsqueeze(-1).expand(-1, -1, z.shape[-1]))


def _add_rows(z: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    return z.scatter_add(1, index.unsqueeze(-1).expand(-1, -1, z.shape[-1]), rows.to(z.dtype))
