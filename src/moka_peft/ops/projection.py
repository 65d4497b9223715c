"""The routed projection in plain torch: z_t = A_m(t) x_t and its gradients, without a copy of x.

Three ways, all exact; the cheapest is taken for each layer's shape and the batch's layout:
"stacked": all A's at once, then each token's own part; M times the arithmetic, which a small rank does not notice.
"runs": one matmul per run of neighbours of one modality, on views of x.
"sorted": tokens are gathered by modality, piece by piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from moka_peft.routing.plan import Plan

from .dropout import Dropout, Mask

# What they cost on two CPU cores, in multiply-adds (1.3e11 a second): measured at widths 512 to 2048, ranks 4 to 64.
MATMUL_COST = 1_300_000  # one more matmul; and its A is packed again:
PACKING_COST = 20  # an element of A
COPY_COST = 64  # an element of x that is gathered, and its gradient scattered
FREE_RANK = 16  # up to here a matmul waits for x, not for arithmetic
PIECE = 2**18  # elements of x that are gathered or masked at a time: they stay in the cache


def project(x: Tensor, A: Sequence[Tensor], plan: Plan, dropout: Dropout | None) -> Tensor:
    """z [T, r] from x [T, I] and an A [r, I] per modality: every token by its own; 0 at padding."""
    way = choose_way(plan, x, A)
    if way == "stacked":
        return _own(_product(x, torch.cat(list(A)), dropout), plan, A[0].shape[0])
    mask, new = _mask(dropout, x), x.new_zeros if plan.has_padding else x.new_empty
    z = new(x.shape[0], A[0].shape[0])
    transposed = [a.t() for a in A]
    for rows, index, taken, out in _pieces(plan, way, x, z, in_parts=mask is not None):
        taken = taken if mask is None else mask.next(taken).mul_(taken)
        if rows is None:
            torch.mm(taken, transposed[index], out=out)
        else:
            z.index_copy_(0, rows, taken @ transposed[index])
    return z


def project_backward(
    dx: Tensor | None, dz: Tensor, x: Tensor, A: Sequence[Tensor], plan: Plan, dropout: Dropout | None
) -> list[Tensor]:
    """Every A's gradient [r, I]; adds dz A to `dx` [T, I] in place. `dz` [T, r] is 0 at padding."""
    way, modalities = choose_way(plan, x, A), len(A)
    if way == "stacked":
        spread, stack = _spread(dz, plan, modalities), torch.cat(list(A))
        if dropout is None:
            if dx is not None:
                dx.addmm_(spread, stack)
            return list((spread.t() @ x).view(modalities, -1, x.shape[1]).unbind())
        dz, A = spread, [stack]
    mask = _mask(dropout, x)
    dA: list[Tensor | None] = [None] * len(A)
    for rows, index, taken, gradient, *out in _pieces(plan, way, x, dz, dx, in_parts=mask is not None):
        kept = None if mask is None else mask.next(taken)
        if dx is not None:
            _add_product(dx if rows is not None else out[0], rows, gradient, A[index], kept)
        dA[index] = _sum(dA[index], gradient.t(), taken if kept is None else kept.mul_(taken))
    found = [torch.zeros_like(a) if d is None else d for a, d in zip(A, dA, strict=True)]
    return list(found[0].view(modalities, -1, x.shape[1]).unbind()) if way == "stacked" else found


def choose_way(plan: Plan, x: Tensor, A: Sequence[Tensor]) -> str:
    """The way with the least arithmetic and copying; on a GPU, where every launch costs, always "stacked"."""
    if x.device.type != "cpu" or len(A) == 1 and not plan.has_padding:
        return "stacked"
    rank, elements = A[0].shape[0], x.numel()
    costs = {
        "stacked": elements * max(len(A) * rank - max(rank, FREE_RANK), 0),
        "runs": len(plan.lengths) * (MATMUL_COST + PACKING_COST * A[0].numel()),
        "sorted": elements * COPY_COST,
    }
    return min(costs, key=lambda way: costs[way])


def _mask(dropout: Dropout | None, x: Tensor) -> Mask | None:
    return None if dropout is None else Mask(dropout, x.device)


def _product(x: Tensor, weight: Tensor, dropout: Dropout | None) -> Tensor:
    """x weight^T, [T, R]; of what is kept of x."""
    mask = _mask(dropout, x)
    if mask is None:
        return x @ weight.t()
    return torch.cat([mask.next(part).mul_(part) @ weight.t() for part in x.split(_rows_in_cache(x))])


def _rows_in_cache(x: Tensor) -> int:
    return max(PIECE // x.shape[1], 1) if x.device.type == "cpu" else x.shape[0]


def _pieces(plan: Plan, way: str, x: Tensor, *others: Tensor | None, in_parts: bool) -> Iterator[tuple]:
    """Per piece: its rows if they are gathered (else None), the weight that they take, and those rows of every tensor.

    Of gathered ones only the first two tensors; the third is written to by row. Rows of padding are in none.
    `in_parts`: no more rows at a time than stay in the cache.
    """
    tensors = [x, *(other for other in others if other is not None)]
    most = _rows_in_cache(x)
    if way == "sorted":
        for index in range(len(plan.bounds) - 1):
            for start in range(plan.bounds[index], plan.bounds[index + 1], most):
                rows = plan.order[start : min(start + most, plan.bounds[index + 1])]
                yield rows, index, *(t.index_select(0, rows) for t in tensors[:2])
        return
    lengths, indices = (plan.lengths, plan.values) if way == "runs" else ((x.shape[0],), (0,))
    for index, *parts in zip(indices, *(t.split(lengths) for t in tensors), strict=True):
        if index < 0:
            continue
        if not in_parts or parts[0].shape[0] <= most:
            yield None, index, *parts
        else:
            for piece in zip(*(part.split(most) for part in parts), strict=True):
                yield None, index, *piece


def _add_product(dx: Tensor, rows: Tensor | None, gradient: Tensor, weight: Tensor, kept: Tensor | None) -> None:
    """dx += gradient weight, as far as it is kept; `rows`: which rows of dx these are."""
    if rows is not None:
        product = gradient @ weight
        dx.index_add_(0, rows, product if kept is None else product.mul_(kept))
    elif kept is not None:
        dx.addcmul_(gradient @ weight, kept)
    else:
        dx.addmm_(gradient, weight)


def _sum(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """total + left right; in float32 or wider, as there may be many."""
    wide = torch.promote_types(left.dtype, torch.float32)
    if total is not None and wide == left.dtype:
        return total.addmm_(left, right)
    product = (left @ right).to(wide)
    return product if total is None else total.add_(product)


def _own(stacked: Tensor, plan: Plan, rank: int) -> Tensor:
    """Each token's own part [T, r] of what all A's gave [T, M r]."""
    own = stacked.view(-1, rank).index_select(0, plan.own)
    return own.masked_fill_((plan.modality < 0).unsqueeze(1), 0) if plan.has_padding else own


def _spread(dz: Tensor, plan: Plan, modalities: int) -> Tensor:
    """The reverse of `_own`: [T, M r], 0 at other modalities."""
    spread = dz.new_zeros(dz.shape[0] * modalities, dz.shape[1])
    return spread.index_copy_(0, plan.own, dz).view(dz.shape[0], -1)
