"""Tiny Qwen-VL, Qwen-Omni and GLM-V models: patches of images and videos with grids, positions of three axes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    PreTrainedConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from .layout import IMAGE, IMAGE_END, IMAGE_START, TIME, VIDEO, VIDEO_END, VIDEO_START, Family, Item, Tensors
from .weights import TEXT, builder

PATCH, FRAMES = 4, 2  # a patch is 4 by 4 pixels of two frames; 2 by 2 patches make one token
WIDE = {**TEXT, "num_attention_heads": 2, "num_key_value_heads": 1}  # heads of 16, of which 8 pairs turn
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
LINEAR_TEXT = {  # the decoder of Qwen 3.5: a layer of linear attention and one of attention
    **WIDE,
    "layer_types": ["linear_attention", "full_attention"],
    "head_dim": 16,
    "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]},
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
VISION = dict(depth=2, hidden_size=32, intermediate_size=48, num_heads=2, patch_size=PATCH, out_hidden_size=32)
MARKERS = dict(
    image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=IMAGE_START, vision_end_token_id=IMAGE_END
)
IMAGE_GRID, VIDEO_GRID = (1, 4, 4), (2, 2, 4)


def draw_patches(values: str, grids: str, grid: tuple[int, int, int]) -> Callable[[torch.Generator], Tensors]:
    """Draws the flattened patches of one item and its grid of frames, rows and columns."""

    def draw(generator: torch.Generator) -> Tensors:
        patches = grid[0] * grid[1] * grid[2]
        width = 3 * FRAMES * PATCH * PATCH
        return {values: torch.randn(patches, width, generator=generator), grids: torch.tensor([grid])}

    return draw


draw_image = draw_patches("pixel_values", "image_grid_thw", IMAGE_GRID)
draw_video = draw_patches("pixel_values_videos", "video_grid_thw", VIDEO_GRID)
IMAGE_ITEM = Item((IMAGE_START, *[IMAGE] * 4, IMAGE_END), draw_image)
VIDEO_ITEM = Item((IMAGE_START, *[VIDEO] * 4, IMAGE_END), draw_video)
STAMPED = Item((TIME, IMAGE_START, VIDEO, VIDEO, IMAGE_END) * 2, draw_video)  # each frame with its time


def qwen_vl(name: str, model_class: type, configure: Callable[[], PreTrainedConfig], video: Item) -> Family:
    """A family whose processor returns `mm_token_type_ids`."""
    items = {"i": IMAGE_ITEM, "v": video}
    return Family(name, builder(model_class, configure), items, type_ids="mm_token_type_ids")


QWEN2_VL = qwen_vl(
    "qwen2_vl",
    Qwen2VLForConditionalGeneration,
    lambda: Qwen2VLConfig(
        text_config={**WIDE, "rope_parameters": ROPE},
        vision_config=dict(depth=2, embed_dim=32, hidden_size=32, mlp_ratio=2, num_heads=2, patch_size=PATCH),
        **MARKERS,
    ),
    VIDEO_ITEM,
)
QWEN2_5_VL = qwen_vl(
    "qwen2_5_vl",
    Qwen2_5_VLForConditionalGeneration,
    lambda: Qwen2_5_VLConfig(
        text_config={**WIDE, "rope_parameters": ROPE},
        vision_config={**VISION, "window_size": 16, "fullatt_block_indexes": [1]},
        **MARKERS,
    ),
    VIDEO_ITEM,
)
QWEN3_VL = qwen_vl(
    "qwen3_vl",
    Qwen3VLForConditionalGeneration,
    lambda: Qwen3VLConfig(
        text_config={**WIDE, "head_dim": 16, "rope_parameters": ROPE},
        vision_config={**VISION, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
        **MARKERS,
    ),
    STAMPED,
)
QWEN3_5 = qwen_vl(
    "qwen3_5",
    Qwen3_5ForConditionalGeneration,
    lambda: Qwen3_5Config(
        text_config=LINEAR_TEXT,
        vision_config={**VISION, "num_position_embeddings": 16},
        **MARKERS,
    ),
    STAMPED,
)
GLM4V = Family(
    "glm4v",
    builder(
        Glm4vForConditionalGeneration,
        lambda: Glm4vConfig(
            text_config={**WIDE, "rope_parameters": {**ROPE, "partial_rotary_factor": 1.0}},
            vision_config={**VISION, "image_size": 16},
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            image_start_token_id=IMAGE_START,
            image_end_token_id=IMAGE_END,
            video_start_token_id=VIDEO_START,
            video_end_token_id=VIDEO_END,
        ),
    ),
    {
        "i": IMAGE_ITEM,
        "v": Item((VIDEO_START, *(IMAGE_START, IMAGE, IMAGE, IMAGE_END, TIME) * 2, VIDEO_END), draw_video),
    },
    type_ids="mm_token_type_ids",
    together=False,
    note="A video's frames are image tokens; forward counts them all and refuses images and videos in one batch.",
)

QWEN_FAMILIES = (QWEN2_VL, QWEN2_5_VL, QWEN3_VL, QWEN3_5, GLM4V)
