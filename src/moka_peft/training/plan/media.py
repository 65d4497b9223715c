"""What a composite's encoders are fed: tensors of the right shapes, and how many tokens come of them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

SAMPLE_RATE_HZ, FRAMES_PER_SECOND = 16_000, 100
BEATS_WINDOW_SECONDS = 0.025
OWN_SEGMENT_SECONDS = {"audio-spectrogram-transformer": 10.24, "whisper": 30.0}
"""The length of a segment where a recipe names none: what these encoders' feature extractors are made for."""


def segment_seconds(config: Any, chosen: float | None) -> float:
    """The length of a segment of a composite. Raises ValueError where neither recipe nor encoder has one."""
    kind = config.audio_config.model_type
    if chosen is None and kind not in OWN_SEGMENT_SECONDS:
        raise ValueError(
            f"`model.audio.segment_seconds` is missing: {kind} has no length of its own. Set it, for example 2.0."
        )
    return chosen or OWN_SEGMENT_SECONDS[kind]


def media_of(kind: str, count: int, config: Any, seconds: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`count` images, frames or segments as the encoder of a composite takes them, all zeros."""
    shape = _segment_shape(config.audio_config, seconds) if kind == "audio" else _image_shape(config.vision_config)
    return torch.zeros(count, *shape, dtype=dtype, device=device)


def tokens_of(base: Any, kind: str, seconds: float) -> int:
    """Embeddings that a composite makes of one image, frame or segment."""
    media = media_of(kind, 1, base.config, seconds, base.device, base.dtype)
    with torch.no_grad():
        return base.embed_media(kind, media).shape[1]


def _image_shape(config: Any) -> tuple[int, ...]:
    size = config.image_size
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return (getattr(config, "num_channels", 3), height, width)


def _segment_shape(config: Any, seconds: float) -> tuple[int, ...]:
    """Of one segment: [bins, frames] for Whisper, [frames, bins] for spectrogram transformers, else [samples]."""
    samples = round(seconds * SAMPLE_RATE_HZ)
    match config.model_type:
        case "whisper":
            frames = min(math.ceil(seconds * FRAMES_PER_SECOND), 2 * config.max_source_positions)
            return (config.num_mel_bins, frames)
        case "audio-spectrogram-transformer":
            return (config.max_length, config.num_mel_bins)
        case "beats":
            window = round(BEATS_WINDOW_SECONDS * SAMPLE_RATE_HZ)
            return ((samples - window) // (SAMPLE_RATE_HZ // FRAMES_PER_SECOND) + 1, config.num_mel_bins)
        case _:
            return (samples,)
