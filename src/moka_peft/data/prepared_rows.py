"""Cuts a batch of one sample into arrays that can be stored, and puts stored ones together to a batch.

    {"input_ids": [1, S], "pixel_values": [1, 3, H, W]} <-> {"input_ids": [S], "pixel_values": [1, 3, H, W]}

A processor may do what it likes to a batch; `differences` says where its batch is more than its rows put together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from moka_peft.data.collator import IGNORED

Row = dict[str, np.ndarray]


def cut_row(batch: Mapping[str, Any]) -> Row:
    """A batch of one sample as arrays: what has one entry per token loses the batch's dimension.

    Raises TypeError for what is no tensor that numpy can hold.
    """
    length = batch["input_ids"].shape[1]
    row = {}
    for name, value in batch.items():
        if not torch.is_tensor(value) or value.dim() == 0:
            raise TypeError(f"`{name}` is no tensor with rows, but {type(value).__name__}")
        row[name] = (value[0] if value.shape == (1, length) else value).numpy()
    return row


def join_rows(rows: Sequence[Row], pad_id: int, side: Literal["left", "right"]) -> dict[str, torch.Tensor]:
    """A batch: texts [B, S] padded on one side, media one after another."""
    blank = {"input_ids": pad_id, "labels": IGNORED}
    names = dict.fromkeys(name for row in rows for name in row)
    batch = {}
    for name in names:
        parts = [row[name] for row in rows if name in row]
        is_text = all(part.shape == row["input_ids"].shape for part, row in zip(parts, rows, strict=False))
        is_text = is_text and len(parts) == len(rows)
        joined = _pad(parts, blank.get(name, 0), side) if is_text else np.concatenate(parts)
        batch[name] = torch.from_numpy(joined)
    return batch


def _pad(texts: Sequence[np.ndarray], blank: int, side: Literal["left", "right"]) -> np.ndarray:
    width = max(map(len, texts))
    padded = np.full((len(texts), width), blank, dtype=texts[0].dtype)
    for row, text in zip(padded, texts, strict=True):
        row[: len(text)] = text
        if side == "left":
            row[:] = np.roll(row, width - len(text))
    return padded


def differences(batch: Mapping[str, Any], joined: Mapping[str, torch.Tensor]) -> list[str]:
    """The names under which two batches differ in any bit, or that only one has."""
    return [
        name
        for name in sorted({*batch, *joined})
        if name not in batch
        or name not in joined
        or batch[name].dtype != joined[name].dtype
        or not torch.equal(batch[name], joined[name])
    ]
