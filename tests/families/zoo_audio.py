"""Tiny models that take audio alone."""

from __future__ import annotations

import torch
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3EncoderConfig,
    AudioFlamingo3ForConditionalGeneration,
    Blip2QFormerConfig,
    GraniteConfig,
    GraniteSpeechConfig,
    GraniteSpeechEncoderConfig,
    GraniteSpeechForConditionalGeneration,
    LlamaConfig,
    Qwen2AudioConfig,
    Qwen2AudioEncoderConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2Config,
    VoxtralConfig,
    VoxtralEncoderConfig,
    VoxtralForConditionalGeneration,
)

from .layout import AUDIO, AUDIO_END, AUDIO_START, Family, Item, Tensors, normal
from .weights import TEXT, TOWER, builder

MELS, FRAMES, HEARD = 8, 24, 20  # the last four frames of a clip are padding


def masked_clip(tokens: tuple[int, ...], mask_name: str) -> Item:
    """A spectrogram [1, mels, frames] with padding at its end, and its mask."""

    def draw(generator: torch.Generator) -> Tensors:
        mask = (torch.arange(FRAMES) < HEARD).long()[None]
        return {"input_features": normal(generator, 1, MELS, FRAMES) * mask, mask_name: mask}

    return Item(tokens, draw)


MARKED = (AUDIO_START, *[AUDIO] * 5, AUDIO_END)

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
                max_source_positions=FRAMES // 2,
            ),
            text_config=Qwen2Config(**TEXT),
            audio_token_index=AUDIO,
        ),
    ),
    {"a": masked_clip(MARKED, "feature_attention_mask")},
)
AUDIOFLAMINGO3 = Family(
    "audioflamingo3",
    builder(
        AudioFlamingo3ForConditionalGeneration,
        lambda: AudioFlamingo3Config(
            audio_config=AudioFlamingo3EncoderConfig(**TOWER, num_mel_bins=MELS, max_source_positions=FRAMES // 2),
            text_config=Qwen2Config(**TEXT),
            audio_token_id=AUDIO,
        ),
    ),
    {"a": masked_clip(MARKED, "input_features_mask")},
)
VOXTRAL = Family(
    "voxtral",
    builder(
        VoxtralForConditionalGeneration,
        lambda: VoxtralConfig(
            audio_config=VoxtralEncoderConfig(
                **{**TOWER, "intermediate_size": 128},  # four frames of 32 become one token
                num_mel_bins=MELS,
                max_source_positions=16,
            ),
            text_config=LlamaConfig(**TEXT),
            audio_token_id=AUDIO,
        ),
    ),
    {"a": Item((AUDIO_START, *[AUDIO] * 4), lambda g: {"input_features": normal(g, 1, MELS, 32)})},
)


def draw_windows(generator: torch.Generator) -> Tensors:
    """Two windows of four frames; each becomes two tokens."""
    return {
        "input_features": normal(generator, 1, 8, MELS),
        "input_features_mask": torch.ones(1, 4, dtype=torch.bool),
    }


GRANITE_SPEECH = Family(
    "granite_speech",
    builder(
        GraniteSpeechForConditionalGeneration,
        lambda: GraniteSpeechConfig(
            encoder_config=GraniteSpeechEncoderConfig(
                input_dim=MELS,
                num_layers=2,
                hidden_dim=32,
                feedforward_mult=2,
                num_heads=4,
                dim_head=8,
                output_dim=6,
                context_size=8,
                max_pos_emb=8,
                dropout=0.0,
                conv_kernel_size=3,
            ),
            projector_config=Blip2QFormerConfig(
                **TOWER,
                encoder_hidden_size=32,
                cross_attention_frequency=1,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            ),
            text_config=GraniteConfig(**TEXT),
            audio_token_index=AUDIO,
            has_lora_adapter=False,
            downsample_rate=2,
            window_size=4,
        ),
    ),
    {"a": Item((AUDIO,) * 4, draw_windows)},
    note="The encoder has batch norms: logits in train mode differ from those in eval mode (by 1.2).",
)

AUDIO_FAMILIES = (QWEN2_AUDIO, AUDIOFLAMINGO3, VOXTRAL, GRANITE_SPEECH)
