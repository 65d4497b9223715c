"""The sum of partial results, one per program along a dimension: out = scale * sum_i partial_i.

Partial sums instead of atomic additions: the order of the additions is fixed, so a result repeats bit for bit.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportPossiblyUnboundVariable=false
# A kernel is compiled, not run: pyright knows neither its launch options nor branches that are chosen when it is.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .tiles import LAUNCH, cdiv, on_device

BLOCK = 512  # elements per program; not measured


@triton.jit(do_not_specialize=["count"])
def _sum(partial, bounds, out, count, length, scale, GROUPED: tl.constexpr, BLOCK: tl.constexpr):
    group = tl.program_id(1)
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = element < length
    addend = partial + element
    first = 0
    last = count
    if GROUPED:
        first = tl.load(bounds + group)
        last = tl.load(bounds + group + 1)
        addend += first.to(tl.int64) * length
    total = tl.zeros([BLOCK], tl.float32)
    for _ in range(first, last):
        total += tl.load(addend, mask=inside, other=0.0)
        addend += length
    tl.store(out + group.to(tl.int64) * length + element, (total * scale).to(out.dtype.element_ty), mask=inside)


def summed(partial: Tensor, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    """partial [P, ...] float32 -> [...]"""
    out = torch.empty(partial.shape[1:], dtype=dtype, device=partial.device)
    _launch(partial, partial, out, out.numel(), 1, scale, grouped=False)
    return out


def summed_by_group(partial: Tensor, bounds: Tensor, dtype: torch.dtype) -> Tensor:
    """partial [P, ...] float32 and bounds [G + 1] -> [G, ...]: group g sums its partials; 0 where it has none."""
    groups = bounds.shape[0] - 1
    out = torch.empty((groups, *partial.shape[1:]), dtype=dtype, device=partial.device)
    _launch(partial, bounds, out, out[0].numel(), groups, 1.0, grouped=True)
    return out


def _launch(
    partial: Tensor, bounds: Tensor, out: Tensor, length: int, groups: int, scale: float, *, grouped: bool
) -> None:
    if out.numel() == 0:
        return
    with on_device(out):
        grid = (cdiv(length, BLOCK), groups)
        _sum[grid](partial, bounds, out, partial.shape[0], length, scale, GROUPED=grouped, BLOCK=BLOCK, **LAUNCH)
