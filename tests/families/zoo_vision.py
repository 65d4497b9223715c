"""Tiny InternVL, Aya Vision, Idefics 3, SmolVLM, MiniCPM-V and Phi-4 models."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import (
    AyaVisionConfig,
    AyaVisionForConditionalGeneration,
    Cohere2Config,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    MiniCPMV4_6Config,
    MiniCPMV4_6ForConditionalGeneration,
    Phi4MultimodalConfig,
    Phi4MultimodalForCausalLM,
    Qwen2Config,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from .layout import AUDIO, IMAGE, IMAGE_END, IMAGE_START, VIDEO, Family, Item, Tensors, concatenate, normal
from .weights import TEXT, TOWER, builder
from .zoo_llava import image
from .zoo_qwen import LINEAR_TEXT

SHUFFLED = dict(image_size=16, patch_size=4)  # 16 patches, of which four become one token
MARKED = (IMAGE_START, *[IMAGE] * 4, IMAGE_END)
MASK = torch.ones(1, 16, 16, dtype=torch.long)

INTERNVL = Family(
    "internvl",
    builder(
        InternVLForConditionalGeneration,
        lambda: InternVLConfig(
            vision_config=InternVLVisionConfig(**TOWER, image_size=[16, 16], patch_size=[4, 4]),
            text_config=Qwen2Config(**TEXT),
            image_token_id=IMAGE,
            image_seq_length=4,
        ),
    ),
    {"i": image(MARKED)},
)
AYA_VISION = Family(
    "aya_vision",
    builder(
        AyaVisionForConditionalGeneration,
        lambda: AyaVisionConfig(
            vision_config=SiglipVisionConfig(**TOWER, **SHUFFLED, vision_use_head=False),
            text_config=Cohere2Config(
                **TEXT, logit_scale=1.0, sliding_window=256, layer_types=["sliding_attention", "full_attention"]
            ),
            image_token_index=IMAGE,
        ),
    ),
    {"i": image(MARKED)},
)


def pad_images(rows: Sequence[Sequence[Tensors]]) -> Tensors:
    """Stacks the images of each row: [rows, most images in a row, ...], missing ones all zero."""
    most = max(map(len, rows))
    blank = {name: torch.zeros_like(t) for row in rows for item in row for name, t in item.items()}
    stacked = [concatenate([[*row, *[blank] * (most - len(row))]]) for row in rows]
    return {name: torch.stack([row[name] for row in stacked]) for name in blank}


MASKED_IMAGE = Item(MARKED, lambda g: {"pixel_values": normal(g, 1, 3, 16, 16), "pixel_attention_mask": MASK})


def idefics(name: str, model_class: type, config_class: type) -> Family:
    """Idefics 3 and SmolVLM, which differ in their names alone here."""

    def configure() -> Idefics3Config | SmolVLMConfig:
        return config_class(
            vision_config={**TOWER, **SHUFFLED}, text_config=LlamaConfig(**TEXT), image_token_id=IMAGE, scale_factor=2
        )

    return Family(name, builder(model_class, configure), {"i": MASKED_IMAGE}, collate=pad_images)


IDEFICS3 = idefics("idefics3", Idefics3ForConditionalGeneration, Idefics3Config)
SMOLVLM = idefics("smolvlm", SmolVLMForConditionalGeneration, SmolVLMConfig)


def pack_patches(rows: Sequence[Sequence[Tensors]]) -> Tensors:
    """One row of pixels for all patches of the batch; the sizes tell them apart."""
    items = [item for row in rows for item in row]
    names = dict.fromkeys(name for item in items for name in item)
    return {
        name: torch.cat([item[name] for item in items if name in item], -1 if "pixel" in name else 0) for name in names
    }


def patches(suffix: str, frames: int) -> Tensors:
    """Draws frames of 4 by 8 patches; 16 patches become one token."""
    return lambda g: {
        f"pixel_values{suffix}": normal(g, 1, 3, 4, 4 * 32 * frames),
        f"target_sizes{suffix}": torch.tensor([[4, 8]] * frames),
    }


MINICPMV4_6 = Family(
    "minicpmv4_6",
    builder(
        MiniCPMV4_6ForConditionalGeneration,
        lambda: MiniCPMV4_6Config(
            vision_config={**TOWER, "image_size": 32, "patch_size": 4, "insert_layer_id": 0},
            text_config={**LINEAR_TEXT, "model_type": "qwen3_5_text"},
            insert_layer_id=0,
            image_size=32,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
        ),
    ),
    {
        "i": Item((IMAGE_START, IMAGE, IMAGE, IMAGE_END), patches("", 1)),
        "v": Item((IMAGE_START, VIDEO, VIDEO, IMAGE_END) * 2, patches("_videos", 2)),
    },
    collate=pack_patches,
)


def draw_crops(generator: torch.Generator) -> Tensors:
    """The whole image and one crop of it: two rows of two tokens and a break each, and a token between the two."""
    return {
        "image_pixel_values": normal(generator, 1, 2, 3, 16, 16),
        "image_sizes": torch.tensor([[16, 16]]),
        "image_attention_mask": torch.ones(1, 2, 4, 4),
    }


def draw_clip(generator: torch.Generator) -> Tensors:
    return {
        "audio_input_features": normal(generator, 1, 24, 16),
        "audio_embed_sizes": torch.tensor([3]),
        "audio_attention_mask": torch.ones(1, 24, dtype=torch.bool),
    }


PHI4_MULTIMODAL = Family(
    "phi4_multimodal",
    builder(
        Phi4MultimodalForCausalLM,
        lambda: Phi4MultimodalConfig(
            **TEXT,
            original_max_position_embeddings=512,
            vision_config={**TOWER, **SHUFFLED, "crop_size": 16, "image_token_id": IMAGE},
            audio_config=dict(
                hidden_size=32,
                intermediate_size=48,
                num_blocks=2,
                num_attention_heads=4,
                ext_pw_out_channel=32,
                depthwise_separable_out_channel=32,
                nemo_conv_channels=8,
                input_size=16,
                bias_max_distance=8,
                audio_token_id=AUDIO,
            ),
        ),
    ),
    {"i": Item((IMAGE,) * 13, draw_crops), "a": Item((AUDIO,) * 3, draw_clip)},
    together=False,
    note="With an image anywhere in the batch all audio goes through another projector.",
)

VISION_FAMILIES = (INTERNVL, AYA_VISION, IDEFICS3, SMOLVLM, MINICPMV4_6, PHI4_MULTIMODAL)
