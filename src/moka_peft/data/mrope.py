"""Positions of time, height and width (M-RoPE) for one sample of the Qwen-VL families, as their models make them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor


def qwen2_vl_positions(batch: Mapping[str, Any], processor: Any, config: Any) -> Tensor:
    """[4, S]: the plain position, which keeps packed samples apart, then time, height and width."""
    return _positions("qwen2_vl", "Qwen2VLModel", batch, config)


def qwen2_5_vl_positions(batch: Mapping[str, Any], processor: Any, config: Any) -> Tensor:
    """[4, S]; like Qwen2-VL's, with a video's seconds as its time."""
    return _positions("qwen2_5_vl", "Qwen2_5_VLModel", batch, config)


def _positions(module: str, name: str, batch: Mapping[str, Any], config: Any) -> Tensor:
    plain = torch.arange(batch["input_ids"].shape[1])[None]
    grids = {key: batch[key] for key in ("image_grid_thw", "video_grid_thw") if key in batch}
    if not grids:  # the model, too, then counts all axes alike
        return plain.expand(4, -1)
    model = getattr(import_module(f"transformers.models.{module}.modeling_{module}"), name)
    bare = object.__new__(model)  # a model without weights: get_rope_index reads its config alone
    bare.__dict__["config"] = config
    seconds = batch.get("second_per_grid_ts")
    axes, _ = bare.get_rope_index(
        batch["input_ids"],
        mm_token_type_ids=_media_kinds(batch["input_ids"], config),
        **grids,
        **({} if seconds is None else {"second_per_grid_ts": torch.as_tensor(seconds)}),
    )
    return torch.cat([plain, axes[:, 0]])


def _media_kinds(input_ids: Tensor, config: Any) -> Tensor:
    """1 at image tokens, 2 at video tokens, 0 elsewhere."""
    kinds = torch.zeros_like(input_ids)
    kinds[input_ids == config.image_token_id] = 1
    kinds[input_ids == config.video_token_id] = 2
    return kinds
