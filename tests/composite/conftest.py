"""Tiny composites in float64 with random weights: 4 embeddings per image, 5 per audio segment."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    ASTConfig,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    HubertConfig,
    LlamaConfig,
    PreTrainedConfig,
    SiglipVisionConfig,
    ViTConfig,
    Wav2Vec2Config,
    WhisperConfig,
)

from moka_peft.composite import CompositeConfig, CompositeForConditionalGeneration
from moka_peft.composite.beats import BeatsConfig

IMAGE_ID, VIDEO_ID, AUDIO_ID = 5, 6, 7
TOKENS = {"i": [IMAGE_ID] * 4, "v": [VIDEO_ID] * 8, "a": [AUDIO_ID] * 5}

LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 24}
PIXELS = {"image_size": 16, "patch_size": 8}
WAVES = {
    "conv_dim": (8, 8),
    "conv_stride": (5, 4),
    "conv_kernel": (10, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
NO_WORDS = {"vocab_size": 1, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0}

VISION = {
    "clip": lambda: CLIPVisionConfig(**LAYERS, **PIXELS),
    "dinov2": lambda: Dinov2Config(**LAYERS, **PIXELS),
    "dinov2_with_registers": lambda: Dinov2WithRegistersConfig(**LAYERS, **PIXELS, num_register_tokens=3),
    "siglip": lambda: SiglipVisionConfig(**LAYERS, **PIXELS),
    "vit": lambda: ViTConfig(**LAYERS, **PIXELS),
}
AUDIO = {
    "ast": lambda: ASTConfig(**LAYERS, max_length=32, num_mel_bins=16, patch_size=8, frequency_stride=8, time_stride=8),
    "beats": lambda: BeatsConfig(
        **LAYERS, num_mel_bins=16, input_patch_size=8, embed_dim=12, conv_pos=4, conv_pos_groups=2, num_buckets=8
    ),
    "hubert": lambda: HubertConfig(**LAYERS, **WAVES),
    "wav2vec2": lambda: Wav2Vec2Config(**LAYERS, **WAVES),
    "whisper": lambda: WhisperConfig(
        **NO_WORDS,
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=24,
        num_mel_bins=8,
        max_source_positions=5,
        decoder_layers=0,
    ),
}


def text_config(**overrides: Any) -> LlamaConfig:
    values = {**LAYERS, "vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return LlamaConfig(**{**values, **overrides})


def composite_config(
    vision: PreTrainedConfig | None = None, audio: PreTrainedConfig | None = None, **overrides: Any
) -> CompositeConfig:
    """A config with placeholder ids for the parts there are."""
    values: dict[str, Any] = {"text_config": text_config(), "vision_config": vision, "audio_config": audio}
    if vision is not None:
        values |= {"image_token_id": IMAGE_ID, "video_token_id": VIDEO_ID}
    if audio is not None:
        values |= {"audio_token_id": AUDIO_ID}
    return CompositeConfig(**{**values, **overrides})


@pytest.fixture
def composite() -> CompositeForConditionalGeneration:
    """LLaMA, ViT and Whisper encoder. Weights are scaled up, so that media visibly change what follows them."""
    torch.manual_seed(0)
    model = CompositeForConditionalGeneration(composite_config(VISION["vit"](), AUDIO["whisper"]())).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(5)
    return model


@pytest.fixture
def inputs() -> Callable[..., dict[str, torch.Tensor]]:
    """inputs("ita", "t") -> a left-padded batch: i image, v video of 2 frames, a audio segment, t text token.

    The n-th medium of its kind is the same in every batch with the same `seed`.
    """

    def build(*rows: str, seed: int = 0) -> dict[str, torch.Tensor]:
        ids = [[1] + [token for place, letter in enumerate(row) for token in _tokens(letter, place)] for row in rows]
        width = max(map(len, ids))
        batch = {
            "input_ids": torch.tensor([[0] * (width - len(row)) + row for row in ids]),
            "attention_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids]),
        }
        letters = "".join(rows)
        for letter, name, shape in (
            ("i", "pixel_values", (3, 16, 16)),
            ("v", "pixel_values_videos", (2, 3, 16, 16)),
            ("a", "input_features", (8, 10)),
        ):
            if letter in letters:
                generator = torch.Generator().manual_seed(seed)
                media = torch.randn(letters.count(letter), *shape, dtype=torch.float64, generator=generator)
                batch[name] = media.flatten(0, 1) if letter == "v" else media
        return batch

    return build


def _tokens(letter: str, place: int) -> list[int]:
    return TOKENS.get(letter, [10 + (3 * place) % 40])
