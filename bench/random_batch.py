"""A batch of a composite or of LLaVA: random media and text, laid out as one chat turn: media, instruction, answer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from moka_peft.routing import RoutingSpec
from moka_peft.training.plan.architecture import routing_of
from moka_peft.training.plan.step import INSTRUCTION_SHARE, Batch

MEDIA_NAMES = {"image": "pixel_values", "video": "pixel_values_videos", "audio": "input_features"}


def random_batch(model: Any, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
    """What the model's forward takes, on the CPU; the loss is on the answer. Padded: the last row lacks one."""
    config = model.get_base_model().config
    spec = routing_of(config)
    ids = _text(config, spec, batch, generator)
    ids[:, 0] = spec.user_open[0][0]
    start = 1
    for kind, tokens in batch.tokens.items():
        ids[:, start : start + tokens] = getattr(config, f"{kind}_token_id")
        start += tokens
    close = start + max(round((batch.length - start) * INSTRUCTION_SHARE), 1)
    ids[:, close] = spec.user_close[0][0]
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[:, : close + 1] = -100
    if batch.masked:
        mask[-1, -1], labels[-1, -1] = 0, -100
    media = {
        MEDIA_NAMES[kind]: torch.randn(shape, generator=generator).to(model.get_base_model().dtype)
        for kind, shape in _shapes(config, batch).items()
    }
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, **media}


def _shapes(config: Any, batch: Batch) -> dict[str, tuple[int, ...]]:
    """Of the media by kind; LLaVA's plan has none, as it encodes them itself: an image a row."""
    if config.model_type == "llava" and batch.tokens:
        size = config.vision_config.image_size
        return {"image": (batch.rows, 3, size, size)}
    return {kind: tuple(tensor.shape) for kind, tensor in batch.media.items()}


def _text(config: Any, spec: RoutingSpec, batch: Batch, generator: torch.Generator) -> Tensor:
    """Random ids [B, S] that are neither placeholders nor where turns open and close."""
    taken = {*spec.media_ids, spec.user_open[0][0], spec.user_close[0][0]}
    free = [token for token in range(config.get_text_config().vocab_size) if token not in taken]
    chosen = torch.randint(len(free), (batch.rows, batch.length), generator=generator)
    return torch.tensor(free)[chosen]
