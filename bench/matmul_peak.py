"""What a device's own matmul reaches, and what a model asks of it."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch import nn

from moka_peft.analysis.speed.rounds import time_rounds


def matmul_peak(device: str, dtype: torch.dtype, size: int = 8192, rounds: int = 20) -> float:
    """FLOPs per second of a square matmul, the median."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    work = {"matmul": lambda: a @ b}
    time_rounds(work, rounds=5, seed=0, device=device)
    seconds = time_rounds(work, rounds=rounds, seed=0, device=device)["matmul"]
    return 2 * size**3 / statistics.median(seconds)


def flops_per_token(model: Any, *, recomputed: bool) -> dict[str, float]:
    """Of a frozen model's training step, its decoder's Linears and its head alone: no attention, no adapter.

    `model`: forward and the gradient of the input, 2 FLOPs a weight each. `hardware`: with the recomputation.
    """
    layers = [m for m in model.get_decoder().modules() if isinstance(m, nn.Linear)]
    weights, head = sum(m.weight.numel() for m in layers), model.get_output_embeddings().weight.numel()
    needed = 4.0 * (weights + head)
    return {"model": needed, "hardware": needed + 2.0 * weights * recomputed}
