"""Tiny models that take images, and some of them video, through a vision tower and a projector."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SiglipVisionConfig,
)

from .layout import IMAGE, IMAGE_END, IMAGE_START, Family, Item
from .weights import TEXT, TOWER, builder

PIXELS = dict(image_size=16, patch_size=8)  # four patches


def draw_pixels(generator: torch.Generator, *shape: int) -> Tensor:
    """Normal values of `shape`."""
    return torch.randn(*shape, generator=generator)


def image(tokens: tuple[int, ...], size: int = 16) -> Item:
    """An image of one tile, `size` pixels wide."""
    return Item(tokens, lambda g: {"pixel_values": draw_pixels(g, 1, 3, size, size)})


LLAVA = Family(
    "llava",
    builder(
        LlavaForConditionalGeneration,
        lambda: LlavaConfig(
            vision_config=CLIPVisionConfig(**TOWER, **PIXELS, projection_dim=32),
            text_config=LlamaConfig(**TEXT),
            image_token_index=IMAGE,
            image_seq_length=4,
        ),
    ),
    {"i": image((IMAGE,) * 4)},
)
GEMMA3 = Family(
    "gemma3",
    builder(
        Gemma3ForConditionalGeneration,
        lambda: Gemma3Config(
            vision_config=SiglipVisionConfig(**TOWER, **PIXELS, vision_use_head=False),
            text_config=Gemma3TextConfig(
                **TEXT,
                head_dim=8,
                query_pre_attn_scalar=8,
                sliding_window=256,
                layer_types=["sliding_attention", "full_attention"],
            ),
            mm_tokens_per_image=4,
            image_token_index=IMAGE,
            boi_token_index=IMAGE_START,
            eoi_token_index=IMAGE_END,
        ),
    ),
    {"i": image((IMAGE_START, *[IMAGE] * 4, IMAGE_END))},
    type_ids="token_type_ids",
)

VISION_FAMILIES = (LLAVA, GEMMA3)
