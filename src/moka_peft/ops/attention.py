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

State = list[tuple[Tensor, ...]]  # per block: queries, keys, received, what the kernel kept; all with one head


def attend(z: Tensor, blocks: Sequence[Blocks]) -> tuple[Tensor, State]:
    """u [T, r] from z [T, r] in float32 or wider, and what the backward takes."""
    u, state = z, []
    for block in blocks:
        query, key = _queries(z, block), _keys(z, block)
        received, kept = _softmax_attention(query, key, block)
        if block.is_whole:
            u = torch.addcmul(u, received.flatten(0, 2), block.lam)
        else:
            u = z.clone() if u is z else u
            _add_to_queries(u, received.flatten(0, 2), block, block.lam)
        state.append((query, key, received, kept))
    return u, state


def attend_backward(z: Tensor, du: Tensor, blocks: Sequence[Blocks], state: State) -> Tensor:
    """dz [T, r] of `attend`, the path through u = z + ... included; `du` may be written to."""
    dz = du if len(blocks) == 1 else du.clone()
    for block, kept in zip(blocks, state, strict=True):
        gradient = _gradient_of_queries(du, block).view_as(kept[0])
        dquery, dkey = _softmax_attention_backward(gradient, block, *kept)
        if block.is_whole:
            dz.add_(dquery.flatten(0, 2))
        else:
            _add_to_queries(dz, dquery.flatten(0, 2), block)
        dz.index_add_(0, block.key.flatten(), dkey[:, :, : block.key.shape[1]].flatten(0, 2))
    return dz


def average(z: Tensor, blocks: Sequence[Blocks]) -> Tensor:
    """u [T, r] where every query receives the mean of its keys."""
    u = z.clone()
    for block in blocks:
        mean = _key_shares(block) @ _rows(z, block.key)  # [C, 1, 1, r]
        _add_to_queries(u, mean.expand(-1, -1, block.query.shape[1], -1).flatten(0, 2), block, block.lam)
    return u


def average_backward(du: Tensor, blocks: Sequence[Blocks]) -> Tensor:
    """dz [T, r] of `average`."""
    dz = du.clone()
    for block in blocks:
        gradient = block.weight[:, None, None] @ _rows(du, block.query)  # [C, 1, 1, r]
        dz.index_add_(0, block.key.flatten(), (_key_shares(block).mT @ gradient).flatten(0, 2))
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
    """[C, 1, Q, r]"""
    return z.view(block.query.shape[0], 1, -1, z.shape[1]) if block.is_whole else _rows(z, block.query)


def _rows(z: Tensor, index: Tensor) -> Tensor:
    """[C, 1, N, r]: with one head, as torch's attention takes it."""
    return z.index_select(0, index.flatten()).view(index.shape[0], 1, index.shape[1], z.shape[1])


def _keys(z: Tensor, block: Blocks) -> Tensor:
    """[C, 1, K, r]; the zero keys of a hole are one more, at the end."""
    key = _rows(z, block.key)
    return key if block.hole is None else F.pad(key, (0, 0, 0, 1))


def _key_shares(block: Blocks) -> Tensor:
    """[C, 1, 1, K] each key's part of the mean."""
    real = torch.ones_like(block.key, dtype=block.weight.dtype) if block.bias is None else block.bias.exp()
    return (real / real.sum(1, keepdim=True))[:, None, None]


def _bias(block: Blocks) -> Tensor | None:
    """[C, 1, 1, K] what is added to the scores: -inf at filled-up keys, log n at n zero keys."""
    bias = block.bias
    if block.hole is not None:
        real = torch.zeros_like(block.key, dtype=block.weight.dtype) if bias is None else bias
        bias = torch.cat([real, block.hole.unsqueeze(1)], 1)
    return None if bias is None else bias[:, None, None]


def _softmax_attention(query: Tensor, key: Tensor, block: Blocks) -> tuple[Tensor, Tensor]:
    """softmax(q k / sqrt r + bias) k: [C, 1, Q, r]; and what its backward needs."""
    bias, scale = _bias(block), 1 / math.sqrt(query.shape[-1])
    if query.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, key, attn_mask=bias, scale=scale)
    scores = (query * scale) @ key.mT
    weights = (scores if bias is None else scores + bias).softmax(-1)
    return weights @ key, weights


def _softmax_attention_backward(
    gradient: Tensor, block: Blocks, query: Tensor, key: Tensor, received: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of queries and keys; the keys are values, too."""
    scale = 1 / math.sqrt(query.shape[-1])
    if query.device.type == "cpu":
        dquery, dkey, dvalue = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            gradient, query, key, key, received, kept, 0.0, False, attn_mask=_bias(block), scale=scale
        )
        return dquery, dkey.add_(dvalue)
    dscores = kept * (gradient @ key.mT - (gradient * received).sum(-1, keepdim=True)) * scale
    return dscores @ key, dscores.mT @ query + kept.mT @ gradient
