"""Packed rows: which sample of its row each token is of, read from position ids that restart."""

from __future__ import annotations

import torch
from torch import Tensor


def samples_of(ids: Tensor, position_ids: Tensor | None) -> Tensor | None:
    """[B, S] from 0: another sample begins where positions do not go on by one, as transformers reads them for its
    attention masks. None where no positions are given: a row is one sample."""
    if position_ids is None:
        return None
    if position_ids.dim() != 2 or position_ids.shape[1] != ids.shape[1] or ids.shape[0] % position_ids.shape[0]:
        raise ValueError(f"`position_ids`: expected {list(ids.shape)}, got {list(position_ids.shape)}.")
    begins = position_ids.diff(dim=1, prepend=position_ids[:, :1] - 1) != 1
    return begins.cumsum(1).expand(ids.shape[0], -1)


def first_columns(ids: Tensor, sample: Tensor | None) -> Tensor:
    """[B, S] the column where each token's sample begins."""
    if sample is None:
        return torch.zeros_like(ids)
    begins = sample.diff(dim=1, prepend=sample[:, :1] - 1) != 0
    columns = torch.arange(ids.shape[1], device=ids.device)
    return torch.where(begins, columns, 0).cummax(1).values


def ends_elsewhere(sample: Tensor, length: int) -> Tensor:
    """[B, S] bool: True where `length` tokens from here on reach into the next sample."""
    ahead = sample.roll(1 - length, 1)
    return ahead != sample


def apart(turn: Tensor, sample: Tensor | None) -> Tensor:
    """`turn` [B, S] with other numbers in every sample."""
    return turn if sample is None else turn + sample * (turn.shape[1] + 1)
