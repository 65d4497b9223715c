"""Attention in rank space in plain torch: u = z + lambda softmax(z z_k / sqrt r) z_k, and its gradient.

Chunks of queries that share their keys, so nothing is computed that is then masked, but for filled-up rows. On the CPU
torch's flash kernel: no [Q, K] tensor in memory, 2 to 5 times faster backward than with one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from moka_peft.routing.plan import Blocks

State = list[tuple[Tensor, Tensor, Tensor, Tensor]]  # per block: queries, keys, received, what the kernel kept


def attend(z: Tensor, blocks: Sequence[Blocks], lam: Tensor) -> tuple[Tensor, State]:
    """u [T, r] from z [T, r] in float32 or wider; `lam` [M], one lambda per modality. And what the backward takes."""
    u, state = z.clone(), []
    for block in blocks:
        query, key = _gather(z, block)
        received, kept = _softmax_attention(query, key, block)
        u.index_add_(0, block.query.flatten(), (received * _share(block, lam)).flatten(0, 1))
        state.append((query, key, received, kept))
    return u, state


def attend_backward(z: Tensor, du: Tensor, blocks: Sequence[Blocks], lam: Tensor, state: State) -> Tensor:
    """dz [T, r] of `attend`, the path through u = z + ... included."""
    dz = du.clone()
    for block, kept in zip(blocks, state, strict=True):
        gradient = _rows(du, block.query) * _share(block, lam)
        dquery, dkey = _softmax_attention_backward(gradient, block, *kept)
        dz.index_add_(0, block.query.flatten(), dquery.flatten(0, 1))
        dz.index_add_(0, block.key.flatten(), dkey[:, : block.key.shape[1]].flatten(0, 1))
    return dz


def average(z: Tensor, blocks: Sequence[Blocks], lam: Tensor) -> Tensor:
    """u [T, r] where every query receives the mean of its keys."""
    u = z.clone()
    for block in blocks:
        mean = _key_shares(block, z).unsqueeze(1) @ _rows(z, block.key)  # [C, 1, r]
        u.index_add_(0, block.query.flatten(), (mean * _share(block, lam)).flatten(0, 1))
    return u


def average_backward(z: Tensor, du: Tensor, blocks: Sequence[Blocks], lam: Tensor) -> Tensor:
    """dz [T, r] of `average`."""
    dz = du.clone()
    for block in blocks:
        gradient = (_rows(du, block.query) * _share(block, lam)).sum(1, keepdim=True)  # [C, 1, r]
        dkey = _key_shares(block, z).unsqueeze(2) @ gradient
        dz.index_add_(0, block.key.flatten(), dkey.flatten(0, 1))
    return dz


def _rows(values: Tensor, index: Tensor) -> Tensor:
    return values.index_select(0, index.flatten()).view(*index.shape, -1)


def _share(block: Blocks, lam: Tensor) -> Tensor:
    """[C, Q, 1] what is received is multiplied with: the lambda of its query; 0 where the query only fills up."""
    return (lam[block.modality] * block.weight).unsqueeze(2)


def _key_shares(block: Blocks, like: Tensor) -> Tensor:
    """[C, K] each key's part of the mean."""
    real = torch.ones_like(block.key, dtype=like.dtype) if block.bias is None else block.bias.to(like.dtype).exp()
    return real / real.sum(1, keepdim=True)


def _gather(z: Tensor, block: Blocks) -> tuple[Tensor, Tensor]:
    """Queries [C, Q, r] and keys [C, K, r]; the zero keys of a hole are one more, at the end."""
    query, key = _rows(z, block.query), _rows(z, block.key)
    return query, key if block.hole is None else F.pad(key, (0, 0, 0, 1))


def _bias(block: Blocks, like: Tensor) -> Tensor | None:
    """[C, 1, K] what is added to the scores: -inf at filled-up keys, log n at n zero keys."""
    bias = None if block.bias is None else block.bias.to(like.dtype)
    if block.hole is not None:
        real = like.new_zeros(block.key.shape) if bias is None else bias
        bias = torch.cat([real, block.hole.unsqueeze(1).to(like.dtype)], 1)
    return None if bias is None else bias.unsqueeze(1)


def _softmax_attention(query: Tensor, key: Tensor, block: Blocks) -> tuple[Tensor, Tensor]:
    """softmax(q k / sqrt r + bias) k: [C, Q, r]; and what the backward needs of it."""
    bias, scale = _bias(block, query), 1 / math.sqrt(query.shape[-1])
    if query.device.type == "cpu":
        bias = None if bias is None else bias.unsqueeze(1)
        q, k = query.unsqueeze(1), key.unsqueeze(1)  # one head
        out, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, k, attn_mask=bias, scale=scale
        )
        return out.squeeze(1), logsumexp
    scores = (query * scale) @ key.mT
    weights = (scores if bias is None else scores + bias).softmax(-1)
    return weights @ key, weights


def _softmax_attention_backward(
    gradient: Tensor, block: Blocks, query: Tensor, key: Tensor, received: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of queries and keys; the keys are values, too."""
    scale = 1 / math.sqrt(query.shape[-1])
    if query.device.type == "cpu":
        bias = _bias(block, query)
        bias = None if bias is None else bias.unsqueeze(1)
        g, q, k, out = (t.unsqueeze(1) for t in (gradient, query, key, received))
        dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            g, q, k, k, out, kept, 0.0, False, attn_mask=bias, scale=scale
        )
        return dq.squeeze(1), (dk + dv).squeeze(1)
    dscores = kept * (gradient @ key.mT - (gradient * received).sum(-1, keepdim=True)) * scale
    return dscores @ key, dscores.mT @ query + kept.mT @ gradient
