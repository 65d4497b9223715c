"""Attention in rank space. Query q of a chunk and the chunk's keys k, in float32 whatever the model's dtype:

    p_qk = exp(s_qk) / (n + sum_k' exp(s_qk'))    s_qk = z_q . z_k / sqrt(r) + bias_k;  n zero keys: logit 0, value 0
    c_q  = sum_k p_qk z_k                         u_q += lambda_q c_q

    with dc = lambda_q du_q:                      ds_qk = p_qk (dc . z_k - dc . c_q)
    dz_q += sum_k ds_qk z_k / sqrt(r)             dz_k += sum_q ds_qk z_q / sqrt(r) + p_qk dc

Nothing of the forward is kept: the backward runs the softmax again over keys that fit in the L2 cache. Rows are
added to atomically, because a row can be a query, and is a key, in several chunks; where torch is asked for
deterministic algorithms, the eager functions take over.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportPossiblyUnboundVariable=false
# A kernel is compiled, not run: pyright knows neither its launch options nor branches that are chosen when it is.

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from moka_peft.ops import attention as eager
from moka_peft.routing.blocks import Blocks

from .product import product
from .tiles import LAUNCH, cdiv, on_device, tile_of


@triton.jit
def _queries(z, query, weight, queries, rank, QUERIES: tl.constexpr, RANK: tl.constexpr):
    """One tile of queries: their elements in z, which of them are real, their z, and lambda."""
    number = tl.program_id(1) * QUERIES + tl.arange(0, QUERIES)
    at = tl.program_id(0).to(tl.int64) * queries + number
    scale = tl.load(weight + at, mask=number < queries, other=0.0).to(tl.float32)
    row = tl.load(query + at, mask=number < queries, other=0).to(tl.int64)
    ranks = tl.arange(0, RANK)
    element = row[:, None] * rank + ranks[None, :]
    real = (scale != 0)[:, None] & (ranks < rank)[None, :]
    return element, real, tl.load(z + element, mask=real, other=0.0).to(tl.float32), scale


@triton.jit
def _keys(z, key, bias, first, keys, rank, HAS_BIAS: tl.constexpr, KEYS: tl.constexpr, RANK: tl.constexpr):
    """One tile of keys: their elements in z, which of them are real, their z, and what is added to their scores."""
    number = first + tl.arange(0, KEYS)
    at = tl.program_id(0).to(tl.int64) * keys + number
    added = tl.where(number < keys, 0.0, float("-inf"))
    if HAS_BIAS:
        added = tl.load(bias + at, mask=number < keys, other=float("-inf"))
    row = tl.load(key + at, mask=number < keys, other=0).to(tl.int64)
    ranks = tl.arange(0, RANK)
    element = row[:, None] * rank + ranks[None, :]
    real = (added > float("-inf"))[:, None] & (ranks < rank)[None, :]
    return element, real, tl.load(z + element, mask=real, other=0.0).to(tl.float32), added


@triton.jit
def _softmax(
    z,
    q,
    key,
    bias,
    hole,
    keys,
    rank,
    root,
    HAS_BIAS: tl.constexpr,
    HAS_HOLE: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    RANK: tl.constexpr,
):
    """c [QUERIES, RANK], the largest score, and one over the sum of the exponentials; 0 where there is no key."""
    most = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    if HAS_HOLE:  # n keys of logit 0 are one of logit log n
        most = tl.zeros([QUERIES], tl.float32) + tl.load(hole + tl.program_id(0)).to(tl.float32)
        total = tl.where(most > float("-inf"), 1.0, 0.0)
    c = tl.zeros([QUERIES, RANK], tl.float32)
    for first in range(0, keys, KEYS):
        _, _, k, added = _keys(z, key, bias, first, keys, rank, HAS_BIAS, KEYS, RANK)
        score = product(q, tl.trans(k)) * root + added[None, :]
        higher = tl.maximum(most, tl.max(score, 1))
        shift = tl.where(higher > float("-inf"), higher, 0.0)
        weight = tl.exp(score - shift[:, None])
        before = tl.exp(most - shift)
        total = total * before + tl.sum(weight, 1)
        c = c * before[:, None] + product(weight, k)
        most = higher
    share = tl.where(total > 0, 1.0 / tl.where(total > 0, total, 1.0), 0.0)
    return c * share[:, None], tl.where(most > float("-inf"), most, 0.0), share


@triton.jit
def _attend(
    z,
    u,
    query,
    weight,
    key,
    bias,
    hole,
    queries,
    keys,
    rank,
    root,
    HAS_BIAS: tl.constexpr,
    HAS_HOLE: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    RANK: tl.constexpr,
):
    element, real, q, scale = _queries(z, query, weight, queries, rank, QUERIES, RANK)
    c, _, _ = _softmax(z, q, key, bias, hole, keys, rank, root, HAS_BIAS, HAS_HOLE, QUERIES, KEYS, RANK)
    tl.atomic_add(u + element, scale[:, None] * c, mask=real, sem="relaxed")


@triton.jit
def _attend_backward(
    z,
    du,
    dz,
    query,
    weight,
    key,
    bias,
    hole,
    queries,
    keys,
    rank,
    root,
    HAS_BIAS: tl.constexpr,
    HAS_HOLE: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    RANK: tl.constexpr,
):
    element, real, q, scale = _queries(z, query, weight, queries, rank, QUERIES, RANK)
    c, most, share = _softmax(z, q, key, bias, hole, keys, rank, root, HAS_BIAS, HAS_HOLE, QUERIES, KEYS, RANK)
    dc = scale[:, None] * tl.load(du + element, mask=real, other=0.0).to(tl.float32)
    along = tl.sum(dc * c, 1)
    dq = tl.zeros([QUERIES, RANK], tl.float32)
    for first in range(0, keys, KEYS):
        where, is_key, k, added = _keys(z, key, bias, first, keys, rank, HAS_BIAS, KEYS, RANK)
        score = product(q, tl.trans(k)) * root + added[None, :]
        p = tl.exp(score - most[:, None]) * share[:, None]
        ds = p * (product(dc, tl.trans(k)) - along[:, None]) * root
        dq += product(ds, k)
        dk = product(tl.trans(ds), q) + product(tl.trans(p), dc)
        tl.atomic_add(dz + where, dk, mask=is_key, sem="relaxed")
    tl.atomic_add(dz + element, dq, mask=real, sem="relaxed")


def attend(z: Tensor, blocks: Sequence[Blocks]) -> tuple[Tensor, eager.State | None]:
    """u [T, r] float32 from z [T, r], and what the backward takes: nothing."""
    if torch.are_deterministic_algorithms_enabled():
        return eager.attend(z, blocks)
    z = z.contiguous()
    u = z.to(torch.float32, copy=True)
    for block in blocks:
        _launch(_attend, (z, u), block)
    return u, None


def attend_backward(z: Tensor, du: Tensor, blocks: Sequence[Blocks], state: eager.State | None) -> Tensor:
    """dz [T, r] float32 of `attend`, the path through u = z + ... included."""
    if state is not None:
        return eager.attend_backward(z, du, blocks, state)
    z, du = z.contiguous(), du.contiguous()
    dz = du.to(torch.float32, copy=True)
    for block in blocks:
        _launch(_attend_backward, (z, du, dz), block)
    return dz


def _launch(kernel: triton.JITFunction, tensors: tuple[Tensor, ...], block: Blocks) -> None:
    chunks, queries = block.query.shape
    rank = tensors[0].shape[1]
    if block.query.numel() == 0 or block.key.numel() == 0:
        return
    tile = tile_of("attend", rank, torch.float32)
    absent = block.weight  # a pointer that the kernel does not follow
    indices = (block.query, block.weight, block.key)
    biases = (absent if block.bias is None else block.bias, absent if block.hole is None else block.hole)
    with on_device(tensors[0]):
        kernel[(chunks, cdiv(queries, tile.rows))](
            *tensors,
            *(tensor.contiguous() for tensor in (*indices, *biases)),
            queries,
            block.key.shape[1],
            rank,
            1 / math.sqrt(rank),
            HAS_BIAS=block.bias is not None,
            HAS_HOLE=block.hole is not None,
            QUERIES=tile.rows,
            KEYS=tile.columns,
            RANK=tile.rank,
            **LAUNCH,
        )
