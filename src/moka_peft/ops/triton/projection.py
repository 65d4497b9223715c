"""Routed projection. For token t of modality m(t), with mask k_t (0 or 1 per element) where dropout is on:

    z_t  = A_m(t) (k_t * x_t)               x is read once, where it lies; each token meets its own A only
    dx_t += k_t * (A_m(t)^T dz_t)           read, add, write
    dA_m = sum over t of m: dz_t (k_t * x_t)^T

The backward walks once over x and dx for both results. k is drawn from (seed, element) in the forward and again in
the backward, never stored; the factor 1 / (1 - p) is the caller's.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportPossiblyUnboundVariable=false
# A kernel is compiled, not run: pyright knows neither its launch options nor branches that are chosen when it is.

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from moka_peft.ops.dropout import STEPS, Dropout
from moka_peft.routing.plan import Plan

from .partials import summed, summed_by_group
from .product import plus_product, product
from .tiles import LAUNCH, STAGES, cdiv, cut, on_device, processors, rows_in_line, segment_rows, tile_of


@triton.jit
def _kept(row, first_column, width, seed, threshold, COLUMNS: tl.constexpr):
    """[rows, COLUMNS] bool: which elements of x dropout keeps. `first_column` is a multiple of 8.

    One Philox call draws eight neighbours, 16 bits each. Seven rounds: the fewest in which its authors saw no flaw.
    """
    eight = row[:, None] * tl.cdiv(width, 8) + (first_column // 8 + tl.arange(0, COLUMNS // 8))[None, :]
    a, b, c, d = tl.randint4x(seed, eight, 7)
    drawn = tl.interleave(tl.interleave(a, c), tl.interleave(b, d))
    return tl.interleave((drawn & 0xFFFF) >= threshold, ((drawn >> 16) & 0xFFFF) >= threshold)


@triton.jit(do_not_specialize=["seed", "threshold"])
def _project(
    x,
    A,
    order,
    table,
    z,
    width,
    rank,
    x_stride,
    split_stride,
    share,
    seed,
    threshold,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    RANK: tl.constexpr,
    DROPOUT: tl.constexpr,
):
    """One tile of rows, and one share of the columns, which is all of them unless there are few rows."""
    tile = table + 3 * tl.program_id(0)
    position = tl.load(tile + 1) + tl.arange(0, ROWS)
    real = position < tl.load(tile + 2)
    row = tl.load(order + position, mask=real, other=0).to(tl.int64)
    ranks = tl.arange(0, RANK)
    own = A + tl.load(tile).to(tl.int64) * rank * width
    first = tl.program_id(1) * share
    total = tl.zeros([ROWS, RANK], tl.float32)
    for start in range(first, min(first + share, width), COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        inside = column < width
        values = tl.load(x + row[:, None] * x_stride + column[None, :], mask=real[:, None] & inside[None, :], other=0.0)
        weight = tl.load(
            own + ranks[:, None] * width + column[None, :], mask=(ranks < rank)[:, None] & inside[None, :], other=0.0
        )
        if DROPOUT:
            values = tl.where(_kept(row, start, width, seed, threshold, COLUMNS), values, 0.0)
        total = plus_product(total, values, tl.trans(weight))
    out = z + tl.program_id(1).to(tl.int64) * split_stride + row[:, None] * rank + ranks[None, :]
    tl.store(out, total.to(z.dtype.element_ty), mask=real[:, None] & (ranks < rank)[None, :])


@triton.jit(do_not_specialize=["seed", "threshold"])
def _project_backward(
    x,
    dx,
    dz,
    A,
    order,
    table,
    partial,
    width,
    rank,
    x_stride,
    dx_stride,
    seed,
    threshold,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    RANK: tl.constexpr,
    HAS_DX: tl.constexpr,
    DROPOUT: tl.constexpr,
):
    """One block of columns of one segment of rows: adds to dx, and leaves the segment's part of dA in `partial`."""
    segment = table + 3 * tl.program_id(1)
    first_column = tl.program_id(0) * COLUMNS
    column = first_column + tl.arange(0, COLUMNS)
    inside = column < width
    ranks = tl.arange(0, RANK)
    own = A + tl.load(segment).to(tl.int64) * rank * width
    is_weight = (ranks < rank)[:, None] & inside[None, :]
    at = ranks[:, None] * width + column[None, :]
    weight = tl.load(own + at, mask=is_weight, other=0.0)
    last = tl.load(segment + 2)
    total = tl.zeros([RANK, COLUMNS], tl.float32)
    for first in range(tl.load(segment + 1), last, ROWS):
        position = first + tl.arange(0, ROWS)
        real = position < last
        row = tl.load(order + position, mask=real, other=0).to(tl.int64)
        here = real[:, None] & inside[None, :]
        values = tl.load(x + row[:, None] * x_stride + column[None, :], mask=here, other=0.0)
        from_z = tl.load(
            dz + row[:, None] * rank + ranks[None, :], mask=real[:, None] & (ranks < rank)[None, :], other=0.0
        ).to(values.dtype)
        if DROPOUT:
            kept = _kept(row, first_column, width, seed, threshold, COLUMNS)
            values = tl.where(kept, values, 0.0)
        if HAS_DX:
            added = product(from_z, weight)
            if DROPOUT:
                added = tl.where(kept, added, 0.0)
            into = dx + row[:, None] * dx_stride + column[None, :]
            added += tl.load(into, mask=here, other=0.0).to(tl.float32)
            tl.store(into, added.to(dx.dtype.element_ty), mask=here)
        total = plus_product(total, tl.trans(from_z), values)
    tl.store(partial + tl.program_id(1).to(tl.int64) * rank * width + at, total, mask=is_weight)


def project(x: Tensor, A: Sequence[Tensor], plan: Plan, dropout: Dropout | None) -> Tensor:
    """z [T, r] from x [T, I] and an A [r, I] per modality: every token by its own; 0 at padding."""
    x, weight = rows_in_line(x), _stacked(A, x.dtype)
    modalities, rank, width = weight.shape
    tile = tile_of("project", rank, x.dtype)
    tiles = cut(plan, tile.rows, modalities)
    splits, share = _column_shares(tiles.count, width, tile.columns, x.device)
    make = torch.zeros if plan.has_padding else torch.empty
    shape, dtype = ((splits, x.shape[0], rank), torch.float32) if splits > 1 else ((x.shape[0], rank), x.dtype)
    z = make(shape, dtype=dtype, device=x.device)
    if tiles.count:
        with on_device(x):
            _project[(tiles.count, splits)](
                x,
                weight,
                plan.order,
                tiles.table,
                z,
                width,
                rank,
                x.stride(0),
                x.shape[0] * rank,
                share,
                dropout.seed if dropout else 0,
                round(dropout.p * STEPS) if dropout else 0,
                ROWS=tile.rows,
                COLUMNS=tile.columns,
                RANK=tile.rank,
                DROPOUT=dropout is not None,
                num_stages=STAGES,
                **LAUNCH,
            )
    return summed(z, x.dtype) if splits > 1 else z


def project_backward(
    dx: Tensor | None, dz: Tensor, x: Tensor, A: Sequence[Tensor], plan: Plan, dropout: Dropout | None
) -> list[Tensor]:
    """Every A's gradient [r, I] float32 from dz [T, r]; adds dz A to `dx` [T, I] in place, except at padding."""
    x, weight = rows_in_line(x), _stacked(A, x.dtype)
    modalities, rank, width = weight.shape
    tile = tile_of("project_backward", rank, x.dtype)
    rows = segment_rows(plan.bounds[-1], width, tile, x.device)
    tiles = cut(plan, rows, modalities)
    partial = torch.empty((tiles.count, rank, width), dtype=torch.float32, device=x.device)
    into = None if dx is None else rows_in_line(dx)
    if tiles.count:
        with on_device(x):
            _project_backward[(cdiv(width, tile.columns), tiles.count)](
                x,
                x if into is None else into,
                dz.contiguous(),
                weight,
                plan.order,
                tiles.table,
                partial,
                width,
                rank,
                x.stride(0),
                0 if into is None else into.stride(0),
                dropout.seed if dropout else 0,
                round(dropout.p * STEPS) if dropout else 0,
                ROWS=tile.rows,
                COLUMNS=tile.columns,
                RANK=tile.rank,
                HAS_DX=into is not None,
                DROPOUT=dropout is not None,
                num_stages=STAGES,
                **LAUNCH,
            )
    if dx is not None and into is not None and into is not dx:
        dx.copy_(into)
    return list(summed_by_group(partial, tiles.bounds, torch.float32).unbind(0))


def _stacked(A: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """[M, r, I] contiguous. A copy per call: M r I elements beside the T I of x."""
    stacked = A if isinstance(A, Tensor) else torch.stack(tuple(A))
    return stacked.to(dtype).contiguous()


def _column_shares(tiles: int, width: int, columns: int, device: torch.device) -> tuple[int, int]:
    """Into how many shares the columns are cut, and the columns of one: more than one where few tiles would idle."""
    wanted = max(processors(device) // max(tiles, 1), 1)
    share = columns * max(cdiv(cdiv(width, columns), wanted), 8)  # a shorter share ends before its reads overlap
    return cdiv(width, share), share
