"""Tiny models that take audio alone."""

from __future__ import annotations

import torch
from transformers import Qwen2AudioConfig, Qwen2AudioEncoderConfig, Qwen2AudioForConditionalGeneration, Qwen2Config

from .layout import AUDIO, AUDIO_END, AUDIO_START, Family, Item, Tensors
from .weights import TEXT, builder

MELS = 8


def draw_mels(generator: torch.Generator, frames: int, length: int) -> Tensors:
    """A spectrogram of `length` frames padded to `frames`, and its mask."""
    mask = (torch.arange(frames) < length).long()[None]
    return {
        "input_features": torch.randn(1, MELS, frames, generator=generator) * mask,
        "feature_attention_mask": mask,
    }


QWEN2_AUDIO = Family(
    "qwen2_audio",
    builder(
        Qwen2AudioForConditionalGeneration,
        lambda: Qwen2AudioConfig(
            audio_config=Qwen2AudioEncoderConfig(
                num_mel_bins=MELS,
                encoder_layers=2,
                encoder_attention_heads=4,
                encoder_ffn_dim=48,
                d_model=32,
                max_source_positions=12,
            ),
            text_config=Qwen2Config(**TEXT),
            audio_token_index=AUDIO,
        ),
    ),
    {"a": Item((AUDIO_START, *[AUDIO] * 5, AUDIO_END), lambda g: draw_mels(g, 24, 20))},
)

AUDIO_FAMILIES = (QWEN2_AUDIO,)
