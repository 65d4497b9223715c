"""The adapted Linear as one autograd function: it keeps x and z, and adds in place whatever can be added in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .update import Update, without_autocast


def adapted_linear(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    result: Tensor | None,
    A: Sequence[Tensor],
    B: Tensor,
    update: Update,
) -> Tensor:
    """[..., O] from x [..., I]: the update added to `result`, or else to the frozen Linear of `weight` [O, I].

    Where there is neither, the update alone. A [r, I] and B [O, r] may be stored wider than x: they take its dtype.
    Differentiable once, in x, `result`, A and B.
    """
    return _AdaptedLinear.apply(x, result, update, (weight, bias), B, *A)


class _AdaptedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        result: Tensor | None,
        update: Update,
        frozen: tuple[Tensor | None, Tensor | None],
        B: Tensor,
        *A: Tensor,
    ) -> Tensor:
        dtype, (weight, bias) = x.dtype, frozen
        with without_autocast(x):
            narrow = [_as(a, dtype) for a in A]
            added_to = None if result is None else _flat(result)
            y, z = update.forward(_flat(x), weight, bias, added_to, narrow, _as(B, dtype))
        ctx.update, ctx.has_result = update, result is not None
        ctx.save_for_backward(x, z, weight, B, *A)
        shape = x.shape[:-1] + y.shape[1:]
        return torch.ops.aten._unsafe_view(y, shape)  # autograd forbids to change a view that was made here in place

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "MokA's update has no second derivative (create_graph=True). Use MokaConfig(impl='reference'), which "
                "is slow, or leave the adapted layers out of it."
            )
        (g,) = gradients
        x, z, weight, B, *A = ctx.saved_tensors
        dtype = x.dtype
        with without_autocast(x):
            narrow, wants_dx = [_as(a, dtype) for a in A], ctx.needs_input_grad[0]
            dx, dA, dB = ctx.update.backward(_flat(g), _flat(x), z, weight, narrow, _as(B, dtype), wants_dx)
        dx = None if dx is None else dx.view(x.shape)
        of_A = [_as(d, a.dtype) for d, a in zip(dA, A, strict=True)]
        return dx, g if ctx.has_result else None, None, None, _as(dB, B.dtype), *of_A


def _flat(rows: Tensor) -> Tensor:
    return rows.reshape(-1, rows.shape[-1])


def _as(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == dtype else tensor.to(dtype)
