"""A loss of an adapter's own, trained without a word in the trainer's loss: only its gradient takes part."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _WithLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, loss: Tensor) -> Tensor:
        ctx.like = loss.detach()
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        return gradients[0], torch.ones_like(ctx.like)


def with_loss(output: Tensor, loss: Tensor) -> Tensor:
    """`output`, whose backward pass also sends gradient 1 into the scalar `loss`.

    The gradients are those of task loss + `loss`, whatever factor the task loss had: each micro-batch of an accumulated
    step adds `loss` whole, and a loss scaled for fp16 would drown it.
    """
    return _WithLoss.apply(output, loss)  # pyright: ignore[reportReturnType]
