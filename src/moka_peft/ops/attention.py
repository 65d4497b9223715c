"""Attention in rank space in plain torch: u = z + lambda softmax(z z_k / sqrt r) z_k, and its gradient.

Chunks of queries that share their keys, so nothing is computed that is then masked, but for filled-up rows. Where
[C, Q, K] is large, on the CPU torch's flash kernel, which holds no such tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from moka_peft.routing.blocks import Blocks

FLASH_FROM = 2**18  # scores; below, three matmuls are faster: at rank 64 a whole training step by 5 %

State = list[tuple[Any, ...]]  # per block: queries, keys, received, what the softmax kept


def attend(z: Tensor, blocks: Sequence[Blocks]) -> tuple[Tensor, State]:
    """u [T, r] from z [T, r] in float32 or wider, and what the backward takes."""
    u, state = z, []
    for block in blocks:
        query, key = _queries(z, block), _keys(z, block)
        received, kept = _softmax_attention(query, key, block)
        if block.is_whole:
            u = torch.addcmul(u, received.flatten(0, 1), block.lam)
        else:
            u = z.clone() if u is z else u
            _add_to_queries(u, received.flatten(0, 1), block, block.lam)
        state.append((query, key, received, kept))
    return u, state


def attend_backward(z: Tensor, du: Tensor, blocks: Sequence[Blocks], state: State) -> Tensor:
    """dz [T, r] of `attend`, the path through u = z + ... included; `du` may be written to."""
    dz = du if len(blocks) == 1 else du.clone()
    for block, kept in zip(blocks, state, strict=True):
        gradient = _gradient_of_queries(du, block).view_as(kept[0])
        dquery, dkey = _softmax_attention_backward(gradient, block, *kept)
        if block.is_whole:
            dz.add_(dquery.flatten(0, 1))
        else:
            _add_to_queries(dz, dquery.flatten(0, 1), block)
        dkey = dkey if block.hole is None else dkey[:, :-1]
        dz.index_add_(0, block.key.reshape(-1), dkey.flatten(0, 1))
    return dz


def average(z: Tensor, blocks: Sequence[Blocks]) -> Tensor:
    """u [T, r] where every query receives the mean of its keys."""
    u = z.clone()
    for block in blocks:
        mean = _key_shares(block) @ _rows(z, block.key)  # [C, 1, r]
        _add_to_queries(u, mean.expand(-1, block.query.shape[1], -1).flatten(0, 1), block, block.lam)
    return u


def average_backward(du: Tensor, blocks: Sequence[Blocks]) -> Tensor:
    """dz [T, r] of `average`."""
    dz = du.clone()
    for block in blocks:
        gradient = block.weight.unsqueeze(1) @ _rows(du, block.query)  # [C, 1, r]
        dz.index_add_(0, block.key.reshape(-1), (_key_shares(block).mT @ gradient).flatten(0, 1))
    return dz


def _add_to_queries(u: Tensor, values: Tensor, block: Blocks, lam: Tensor | None = None) -> None:
    """Adds [C Q, r], times lambda, to the rows of queries; these are different ones, so no slow index_add is needed."""
    values = values if block.slots is None else values.index_select(0, block.slots)
    present = u.index_select(0, block.rows)
    u.index_copy_(0, block.rows, present.add_(values) if lam is None else present.addcmul_(values, lam))


def _gradient_of_queries(du: Tensor, block: Blocks) -> Tensor:
    """[C Q, r] of what queries received; 0 at repeated ones, and at rows that are none."""
    if block.is_whole:
        return du * block.lam
    gradient = du.index_select(0, block.rows).mul_(block.lam)
    if block.slots is None:
        return gradient
    return du.new_zeros(block.query.numel(), du.shape[1]).index_copy_(0, block.slots, gradient)


def _queries(z: Tensor, block: Blocks) -> Tensor:
    """[C, Q, r]"""
    return z.view(*block.query.shape, -1) if block.is_whole else _rows(z, block.query)


def _rows(z: Tensor, index: Tensor) -> Tensor:
    return z.index_select(0, index.reshape(-1)).view(*index.shape, -1)


def _keys(z: Tensor, block: Blocks) -> Tensor:
    """[C, K, r]; the zero keys of a hole are one more, at the end."""
    key = _rows(z, block.key)
    return key if block.hole is None else F.pad(key, (0, 0, 0, 1))


def _key_shares(block: Blocks) -> Tensor:
    """[C, 1, K] each key's part of the mean."""
    real = torch.ones_like(block.key, dtype=block.weight.dtype) if block.bias is None else block.bias.exp()
    return (real / real.sum(1, keepdim=True)).unsqueeze(1)


def _bias(block: Blocks) -> Tensor | None:
    """[C, 1, K] what is added to the scores: -inf at filled-up keys, log n at n zero keys."""
    bias = block.bias
    if block.hole is not None:
        real = torch.zeros_like(block.key, dtype=block.weight.dtype) if bias is None else bias
        bias = torch.cat([real, block.hole.unsqueeze(1)], 1)
    return None if bias is None else bias.unsqueeze(1)


def _softmax_attention(query: Tensor, key: Tensor, block: Blocks) -> tuple[Tensor, Any]:
    """softmax(q k / sqrt r + bias) k: [C, Q, r]; and what its backward needs."""
    bias, scale = _bias(block), 1 / math.sqrt(query.shape[-1])
    if _takes_flash(query, key):
        return _flash(query, key, bias, scale)
    scaled = key * scale
    scores = torch.bmm(query, scaled.mT) if bias is None else torch.baddbmm(bias, query, scaled.mT)
    weights = scores.softmax(-1)
    return torch.bmm(weights, key), (weights, scaled)


def _softmax_attention_backward(
    gradient: Tensor, block: Blocks, query: Tensor, key: Tensor, received: Tensor, kept: Any
) -> tuple[Tensor, Tensor]:
    """Gradients of queries and keys, [C, Q, r] and [C, K, r]; the keys are values, too."""
    scale = 1 / math.sqrt(query.shape[-1])
    if _takes_flash(query, key):
        return _flash_backward(gradient, query, key, received, kept, _bias(block), scale)
    weights, scaled = kept
    dscores = torch.ops.aten._softmax_backward_data(torch.bmm(gradient, key.mT), weights, -1, weights.dtype)
    dkey = torch.baddbmm(torch.bmm(weights.mT, gradient), dscores.mT, query, alpha=scale)
    return torch.bmm(dscores, scaled), dkey


def _takes_flash(query: Tensor, key: Tensor) -> bool:
    return query.is_cpu and query.shape[0] * query.shape[1] * key.shape[1] >= FLASH_FROM


def _flash(query: Tensor, key: Tensor, bias: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    q, k, bias = query.unsqueeze(1), key.unsqueeze(1), None if bias is None else bias.unsqueeze(1)  # one head
    received, kept = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, k, attn_mask=bias, scale=scale)
    return received.squeeze(1), kept


def _flash_backward(
    gradient: Tensor, query: Tensor, key: Tensor, received: Tensor, kept: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    g, q, k, c = (t.unsqueeze(1) for t in (gradient, query, key, received))
    bias = None if bias is None else bias.unsqueeze(1)
    dquery, dkey, dvalue = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        g, q, k, k, c, kept, 0.0, False, attn_mask=bias, scale=scale
    )
    return dquery.squeeze(1), dkey.add_(dvalue).squeeze(1)
