"""Tiny LLaVA-like models: a vision tower, a projector and a language model that knows nothing of images."""

from __future__ import annotations

import inspect

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralVisionConfig,
    Qwen2Config,
    SiglipVisionConfig,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
)

from .layout import IMAGE, IMAGE_END, IMAGE_START, VIDEO, Family, Item, normal
from .weights import TEXT, TOWER, builder

PIXELS = dict(image_size=16, patch_size=8)  # four patches
PINPOINTS = [[16, 32], [32, 16]]
CLIP = {**TOWER, **PIXELS, "projection_dim": 32}


def image(tokens: tuple[int, ...], size: int = 16, **also: torch.Tensor) -> Item:
    """A square image of one tile, `size` pixels wide, and other tensors that never vary."""
    return Item(tokens, lambda g: {"pixel_values": normal(g, 1, 3, size, size), **also})


def sized_image(tokens: tuple[int, ...], size: int) -> Item:
    """A square image with its height and width."""
    return image(tokens, size, image_sizes=torch.tensor([[size, size]]))


TILED_IMAGE = Item(  # the whole image, then two tiles beside each other with a line break after each of two rows
    (IMAGE,) * (4 + 2 * (4 + 1)),
    lambda g: {"pixel_values": normal(g, 1, 3, 3, 16, 16), "image_sizes": torch.tensor([[16, 32]])},
)
BROKEN_ROWS = (IMAGE, IMAGE, IMAGE_START, IMAGE, IMAGE, IMAGE_END)  # two rows of two, a break between them

LLAVA = Family(
    "llava",
    builder(
        LlavaForConditionalGeneration,
        lambda: LlavaConfig(
            vision_config=CLIPVisionConfig(**CLIP),
            text_config=LlamaConfig(**TEXT),
            image_token_index=IMAGE,
            image_seq_length=4,
        ),
    ),
    {"i": image((IMAGE,) * 4)},
)
PIXTRAL_LLAVA = Family(
    "pixtral_llava",
    builder(
        LlavaForConditionalGeneration,
        lambda: LlavaConfig(
            vision_config=PixtralVisionConfig(**TOWER, image_size=8, patch_size=4),
            text_config=MistralConfig(**TEXT, head_dim=8, sliding_window=None),
            image_token_index=IMAGE,
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
        ),
    ),
    {"i": sized_image(BROKEN_ROWS, 8)},
)
MISTRAL3 = Family(
    "mistral3",
    builder(
        Mistral3ForConditionalGeneration,
        lambda: Mistral3Config(
            vision_config=PixtralVisionConfig(**TOWER, image_size=16, patch_size=4),
            text_config=MistralConfig(**TEXT, head_dim=8, sliding_window=None),
            image_token_index=IMAGE,
        ),
    ),
    {"i": sized_image(BROKEN_ROWS, 16)},
)
LLAVA_NEXT = Family(
    "llava_next",
    builder(
        LlavaNextForConditionalGeneration,
        lambda: LlavaNextConfig(
            vision_config=CLIPVisionConfig(**CLIP),
            text_config=LlamaConfig(**TEXT),
            image_token_index=IMAGE,
            image_grid_pinpoints=PINPOINTS,
            image_seq_length=4,
        ),
    ),
    {"i": TILED_IMAGE},
)
LLAVA_ONEVISION = Family(
    "llava_onevision",
    builder(
        LlavaOnevisionForConditionalGeneration,
        lambda: LlavaOnevisionConfig(
            vision_config=SiglipVisionConfig(**TOWER, **PIXELS, vision_use_head=False),
            text_config=Qwen2Config(**TEXT),
            image_token_index=IMAGE,
            video_token_index=VIDEO,
            image_grid_pinpoints=PINPOINTS,
        ),
    ),
    {
        "i": TILED_IMAGE,
        "v": Item((VIDEO,) * (3 + 1), lambda g: {"pixel_values_videos": normal(g, 1, 3, 3, 16, 16)}),
    },
)
VIDEO_LLAVA_IMAGES = (  # renamed within transformers 5
    "pixel_values"
    if "pixel_values" in inspect.signature(VideoLlavaForConditionalGeneration.forward).parameters
    else "pixel_values_images"
)
VIDEO_LLAVA = Family(
    "video_llava",
    builder(
        VideoLlavaForConditionalGeneration,
        lambda: VideoLlavaConfig(
            vision_config=CLIPVisionConfig(**CLIP),
            text_config=LlamaConfig(**TEXT),
            image_token_index=IMAGE,
            video_token_index=VIDEO,
            image_seq_length=4,
            video_seq_length=10,
        ),
    ),
    {
        "i": Item((IMAGE,) * 4, lambda g: {VIDEO_LLAVA_IMAGES: normal(g, 1, 3, 16, 16)}),
        "v": Item((VIDEO,) * 10, lambda g: {"pixel_values_videos": normal(g, 1, 2, 3, 16, 16)}),
    },
)

LLAVA_FAMILIES = (LLAVA, LLAVA_NEXT, LLAVA_ONEVISION, VIDEO_LLAVA, MISTRAL3, PIXTRAL_LLAVA)
