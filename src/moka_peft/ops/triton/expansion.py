"""Expand and accumulate. With y the base's output, g the gradient of y, and s the scaling:

y  += s u B^T           read, add, write: no [T, O] tensor beside y
du  = s g B             g is read once for both: a program holds a block of O and walks down the rows, so dB
dB  = s g^T u           gathers in registers, and du leaves one partial sum per block of O
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportPossiblyUnboundVariable=false
# A kernel is compiled, not run: pyright knows neither its launch options nor branches that are chosen when it is.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .partials import summed
from .product import plus_product, product
from .tiles import LAUNCH, STAGES, cdiv, on_device, rows_in_line, segment_rows, tile_of


@triton.jit
def _expand(
    y,
    u,
    B,
    tokens,
    width,
    rank,
    y_stride,
    scaling,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    RANK: tl.constexpr,
):
    row = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    ranks = tl.arange(0, RANK)
    is_rank = (ranks < rank)[None, :]
    update = tl.load(u + row[:, None] * rank + ranks[None, :], mask=(row < tokens)[:, None] & is_rank, other=0.0)
    weight = tl.load(B + column[:, None] * rank + ranks[None, :], mask=(column < width)[:, None] & is_rank, other=0.0)
    kind = y.dtype.element_ty
    added = product(update.to(kind), tl.trans(weight.to(kind)))
    into = y + row[:, None] * y_stride + column[None, :]
    here = (row < tokens)[:, None] & (column < width)[None, :]
    total = tl.load(into, mask=here, other=0.0).to(tl.float32) + scaling * added
    tl.store(into, total.to(kind), mask=here)


@triton.jit
def _expand_backward(
    g,
    u,
    B,
    du,
    dB,
    tokens,
    width,
    rank,
    g_stride,
    segment,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    RANK: tl.constexpr,
):
    """du: [blocks of columns, T, r] and dB: [segments of rows, O, r], partial sums in float32."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    ranks = tl.arange(0, RANK)
    is_rank = (ranks < rank)[None, :]
    kind = g.dtype.element_ty
    at = column[:, None] * rank + ranks[None, :]
    weight = tl.load(B + at, mask=inside[:, None] & is_rank, other=0.0).to(kind)
    total = tl.zeros([COLUMNS, RANK], tl.float32)
    du += tl.program_id(0).to(tl.int64) * tokens * rank
    start = tl.program_id(1) * segment
    for first in range(start, min(start + segment, tokens), ROWS):
        row = (first + tl.arange(0, ROWS)).to(tl.int64)
        real = row < tokens
        values = tl.load(g + row[:, None] * g_stride + column[None, :], mask=real[:, None] & inside[None, :], other=0.0)
        narrow = row[:, None] * rank + ranks[None, :]
        update = tl.load(u + narrow, mask=real[:, None] & is_rank, other=0.0).to(kind)
        tl.store(du + narrow, product(values, weight), mask=real[:, None] & is_rank)
        total = plus_product(total, tl.trans(values), update)
    tl.store(dB + tl.program_id(1).to(tl.int64) * width * rank + at, total, mask=inside[:, None] & is_rank)


def expand_(y: Tensor, u: Tensor, B: Tensor, scaling: float) -> None:
    """y [T, O] += scaling u [T, r] B^T, B [O, r]. Multiplies in y's dtype, adds in float32, rounds once."""
    width, rank = B.shape
    tile = tile_of("expand", rank, y.dtype)
    into = rows_in_line(y)
    if y.numel():
        with on_device(y):
            _expand[(cdiv(width, tile.columns), cdiv(y.shape[0], tile.rows))](
                into,
                u.contiguous(),
                B.contiguous(),
                y.shape[0],
                width,
                rank,
                into.stride(0),
                scaling,
                ROWS=tile.rows,
                COLUMNS=tile.columns,
                RANK=tile.rank,
                **LAUNCH,
            )
    if into is not y:
        y.copy_(into)


def expand_backward(g: Tensor, u: Tensor, B: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """g [T, O], u [T, r], B [O, r] -> du [T, r] and dB [O, r], both float32."""
    g = rows_in_line(g)
    tokens, (width, rank) = g.shape[0], B.shape
    tile = tile_of("expand_backward", rank, g.dtype)
    segment = segment_rows(tokens, width, tile, g.device)
    grid = (cdiv(width, tile.columns), cdiv(tokens, segment))
    du = torch.empty((grid[0], tokens, rank), dtype=torch.float32, device=g.device)
    dB = torch.empty((grid[1], width, rank), dtype=torch.float32, device=g.device)
    if g.numel():
        with on_device(g):
            _expand_backward[grid](
                g,
                u.contiguous(),
                B.contiguous(),
                du,
                dB,
                tokens,
                width,
                rank,
                g.stride(0),
                segment,
                ROWS=tile.rows,
                COLUMNS=tile.columns,
                RANK=tile.rank,
                num_stages=STAGES,
                **LAUNCH,
            )
    return summed(du, torch.float32, scaling), summed(dB, torch.float32, scaling)
