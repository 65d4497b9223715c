"""Tiny Qwen-Omni models: images, videos and audio in one model."""

from __future__ import annotations

import torch
from transformers import (
    Qwen2_5OmniConfig,
    Qwen2_5OmniForConditionalGeneration,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
)

from .layout import (
    AUDIO,
    AUDIO_END,
    AUDIO_START,
    IMAGE,
    IMAGE_END,
    IMAGE_START,
    PAD,
    VIDEO,
    Family,
    Item,
    Tensors,
    normal,
)
from .weights import builder
from .zoo_qwen import IMAGE_ITEM, ROPE, VISION, WIDE, draw_video

FRAMES, MELS = 24, 16  # in Qwen 2.5 two windows of the audio tower, the second one half full; in Qwen 3 one
TOKENS = dict(audio_start_token_id=AUDIO_START, audio_end_token_id=AUDIO_END)
MARKERS = dict(vision_start_token_id=IMAGE_START, vision_end_token_id=IMAGE_END)
AUDIO_TOWER = dict(
    num_mel_bins=MELS,
    encoder_layers=2,
    encoder_attention_heads=4,
    encoder_ffn_dim=48,
    d_model=32,
    output_dim=32,
    max_source_positions=FRAMES,
    n_window=8,
)


def draw_clip(generator: torch.Generator) -> Tensors:
    mask = torch.ones(1, FRAMES, dtype=torch.long)
    return {"input_features": normal(generator, 1, MELS, FRAMES), "feature_attention_mask": mask}


def draw_timed_video(generator: torch.Generator) -> Tensors:
    return {**draw_video(generator), "video_second_per_grid": torch.tensor([1.0])}


def items(audio_tokens: int) -> dict[str, Item]:
    return {
        "i": IMAGE_ITEM,
        "v": Item((IMAGE_START, *[VIDEO] * 4, IMAGE_END), draw_timed_video),
        "a": Item((AUDIO_START, *[AUDIO] * audio_tokens, AUDIO_END), draw_clip),
    }


def qwen2_5_thinker() -> dict:
    return dict(
        audio_config=AUDIO_TOWER,
        vision_config={**VISION, "window_size": 16, "fullatt_block_indexes": [1]},
        text_config={**WIDE, "rope_parameters": ROPE},
        audio_token_index=AUDIO,
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        **TOKENS,
        **MARKERS,
    )


def unused_talker() -> dict:
    """A talker's config whose ids fit its vocabulary: no talker is built, but the default one logs warnings."""
    names = ("tts_text_start", "tts_text_end", "tts_text_pad", "tts_codec_start", "tts_codec_end", "tts_codec_pad")
    return {**{f"{name}_token_id": PAD for name in names}, "tts_codec_mask_token_id": PAD, **TOKENS, **MARKERS}


QWEN2_5_OMNI_THINKER = Family(
    "qwen2_5_omni_thinker",
    builder(Qwen2_5OmniThinkerForConditionalGeneration, lambda: Qwen2_5OmniThinkerConfig(**qwen2_5_thinker())),
    items(6),
)
QWEN2_5_OMNI = Family(
    "qwen2_5_omni",
    builder(
        Qwen2_5OmniForConditionalGeneration,
        lambda: Qwen2_5OmniConfig(
            thinker_config=qwen2_5_thinker(), talker_config=unused_talker(), enable_audio_output=False
        ),
    ),
    items(6),
    part="thinker",
    note="The model has no forward of its own, and its `generate` wants speakers: use the thinker's.",
)
QWEN3_OMNI_MOE_THINKER = Family(
    "qwen3_omni_moe_thinker",
    builder(
        Qwen3OmniMoeThinkerForConditionalGeneration,
        lambda: Qwen3OmniMoeThinkerConfig(
            audio_config={**AUDIO_TOWER, "n_window": 50, "n_window_infer": 100, "downsample_hidden_size": 8},
            vision_config={**VISION, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
            text_config={
                **WIDE,
                "head_dim": 16,
                "rope_parameters": ROPE,
                "moe_intermediate_size": 48,
                "num_experts": 2,
                "num_experts_per_tok": 2,
            },
            audio_token_id=AUDIO,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            **TOKENS,
            **MARKERS,
        ),
    ),
    items(3),
)

OMNI_FAMILIES = (QWEN2_5_OMNI_THINKER, QWEN2_5_OMNI, QWEN3_OMNI_MOE_THINKER)
