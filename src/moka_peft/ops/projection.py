"""The routed projection in plain torch: z_t = A_m(t) x_t and its gradients, without a copy of x.

Three ways, all exact; the cheapest is taken for each layer's shape and the batch's layout:
"stacked": all A's at once, then each token's own part; M times the arithmetic, which a small rank does not notice.
"runs": one matmul per run of neighbours of one modality, on views of x.
"sorted": tokens are gathered by modality, piece by piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moka_peft.routing.plan import Plan

from .dropout import Dropout, Mask

# What they cost on two CPU cores, in multiply-adds (1.3e11 a second): measured at widths 512 to 2048, ranks 4 to 64.
MATMUL_COST = 1_300_000  # one more matmul; and its A is packed again:
PACKING_COST = 30  # an element of A
COPY_COST = 32  # an element of x that is gathered, and its gradient scattered
FREE_RANK = 16  # up to here a matmul waits for x, not for arithmetic
PIECE = 2**18  # elements of x that are gathered or masked at a time: they stay in the cache


@dataclass(frozen=True)
class Piece:
    """Some rows and the A they take: `modality`'s, or None for all."""

    rows: slice | Tensor
    modality: int | None


def project(x: Tensor, A: Sequence[Tensor], plan: Plan, dropout: Dropout | None) -> Tensor:
    """z [T, r] from x [T, I] and an A [r, I] per modality: every token by its own; 0 at padding."""
    way = choose_way(plan, x, A)
    rank, is_stacked = A[0].shape[0], way == "stacked"
    mask = Mask(dropout, x.device) if dropout else None
    stack = torch.cat(list(A)) if is_stacked else None
    z = x.new_empty(x.shape[0], len(A) * rank) if is_stacked else x.new_zeros(x.shape[0], rank)
    for piece in _pieces(plan, x, way, in_parts=mask is not None):
        weight = A[piece.modality] if piece.modality is not None else stack
        taken = _take(x, piece.rows)
        if mask:
            taken = mask.next(taken).mul_(taken)
        if isinstance(piece.rows, slice):
            torch.mm(taken, weight.t(), out=z[piece.rows])
        else:
            z.index_copy_(0, piece.rows, taken @ weight.t())
    return _own(z, plan, rank) if is_stacked else z


def project_backward(
    dx: Tensor | None, dz: Tensor, x: Tensor, A: Sequence[Tensor], plan: Plan, dropout: Dropout | None
) -> list[Tensor]:
    """Every A's gradient [r, I]; adds dz A to `dx` [T, I] in place. `dz` [T, r] is 0 at padding."""
    way = choose_way(plan, x, A)
    rank, is_stacked = A[0].shape[0], way == "stacked"
    mask = Mask(dropout, x.device) if dropout else None
    stack = torch.cat(list(A)) if is_stacked else None
    dz = _spread(dz, plan, len(A)) if is_stacked else dz
    dA = dz.new_zeros(len(A), rank, x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))
    for piece in _pieces(plan, x, way, in_parts=mask is not None):
        weight, total = (
            (A[piece.modality], dA[piece.modality]) if piece.modality is not None else (stack, dA.flatten(0, 1))
        )
        taken, gradient = _take(x, piece.rows), _take(dz, piece.rows)
        kept = mask.next(taken) if mask else None
        if dx is not None:
            _add_product(dx, piece.rows, gradient, weight, kept)
        _accumulate(total, gradient.t(), taken if kept is None else kept.mul_(taken))
    return list(dA.unbind())


def choose_way(plan: Plan, x: Tensor, A: Sequence[Tensor]) -> str:
    """The way with the least arithmetic and copying; on a GPU, where every launch costs, always "stacked"."""
    if x.device.type != "cpu" or len(A) == 1 and not plan.has_padding:
        return "stacked"
    rank, elements = A[0].shape[0], x.numel()
    costs = {
        "stacked": elements * max(len(A) * rank - max(rank, FREE_RANK), 0),
        "runs": len(plan.runs) * (MATMUL_COST + PACKING_COST * A[0].numel()),
        "sorted": elements * COPY_COST,
    }
    return min(costs, key=lambda way: costs[way])


def _pieces(plan: Plan, x: Tensor, way: str, *, in_parts: bool) -> Iterator[Piece]:
    """The rows of x, each once; `in_parts`: no more of them at a time than stay in the cache."""
    if way == "stacked":
        spans = [(0, x.shape[0], None)]
    elif way == "runs":
        spans = plan.runs
    else:
        spans = [(a, b, m) for m, (a, b) in enumerate(zip(plan.bounds, plan.bounds[1:], strict=False))]
    most = max(PIECE // x.shape[1], 1) if way == "sorted" or (in_parts and x.device.type == "cpu") else x.shape[0]
    for first, last, modality in spans:
        for start in range(first, last, most):
            stop = min(start + most, last)
            yield Piece(plan.order[start:stop] if way == "sorted" else slice(start, stop), modality)


def _take(values: Tensor, rows: slice | Tensor) -> Tensor:
    return values[rows] if isinstance(rows, slice) else values.index_select(0, rows)


def _add_product(dx: Tensor, rows: slice | Tensor, gradient: Tensor, weight: Tensor, kept: Tensor | None) -> None:
    if isinstance(rows, slice) and kept is None:
        dx[rows].addmm_(gradient, weight)
    elif isinstance(rows, slice):
        dx[rows].addcmul_(gradient @ weight, kept)
    else:
        product = gradient @ weight
        dx.index_add_(0, rows, product if kept is None else product.mul_(kept))


def _accumulate(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left right; in float32 or wider, as there may be many."""
    if total.dtype == right.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)


def _own(stacked: Tensor, plan: Plan, rank: int) -> Tensor:
    """Each token's own part [T, r] of what all A's gave [T, M r]."""
    parts = stacked.unflatten(1, (-1, rank))
    own = parts.gather(1, _index(plan, rank)).squeeze(1)
    return own.masked_fill_((plan.modality < 0).unsqueeze(1), 0) if plan.has_padding else own


def _spread(dz: Tensor, plan: Plan, modalities: int) -> Tensor:
    """The reverse of `_own`: [T, M r], 0 at other modalities."""
    spread = dz.new_zeros(dz.shape[0], modalities, dz.shape[1])
    return spread.scatter_(1, _index(plan, dz.shape[1]), dz.unsqueeze(1)).flatten(1)


def _index(plan: Plan, rank: int) -> Tensor:
    return plan.modality.clamp(min=0)[:, None, None].expand(-1, 1, rank)
