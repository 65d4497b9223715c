"""How each kind of vision and audio encoder is built and read: one literal table, keyed by model type."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, PreTrainedModel, WhisperModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from .beats import BeatsFeatureExtractor, load_beats, read_beats_config
from .loading import load_whole


@dataclass(frozen=True)
class EncoderKind:
    """What differs between encoders.

    `leading_tokens(config)` counts the class, distillation and register tokens in front of the patches.
    `build(config)` makes the encoder with random weights, `load(name, config=..., **kwargs)` a pretrained one.
    `fit(config, media)` returns media of a length that the encoder takes, and how many of its tokens are theirs
    (None: all of them).
    """

    leading_tokens: Callable[[Any], int] = lambda config: 0
    fit: Callable[[Any, Tensor], tuple[Tensor, int | None]] = lambda config, media: (media, None)
    build: Callable[..., Any] = AutoModel.from_config
    load: Callable[..., Any] = partial(load_whole, AutoModel.from_pretrained)


WHISPER_MAY_LACK = r"^decoder\."


def _load_whisper_encoder(name: str, **kwargs: Any) -> PreTrainedModel:
    return load_whole(WhisperModel.from_pretrained, name, WHISPER_MAY_LACK, **kwargs).get_encoder()


def _fill_whisper_window(config: Any, features: Tensor) -> tuple[Tensor, int | None]:
    """Segments [N, bins, frames] with silence up to the window that Whisper was trained on and insists on.

    The tokens of the silence are dropped, but they cost as much as others. Silence is what Whisper's log mel makes
    of it: 8 decades below the loudest bin, at least 1e-10. Raises ValueError where segments exceed the window.
    """
    frames, window = features.shape[-1], 2 * config.max_source_positions
    if frames > window:
        raise ValueError(
            f"`input_features` are too long for Whisper: expected at most {window} frames of 10 ms, got {frames}. "
            f"Choose a shorter `segment_seconds`."
        )
    loudest = features.amax(dim=(1, 2), keepdim=True)
    silence = (loudest - 2).clamp(min=-1.5).expand(-1, features.shape[1], window - frames)
    return torch.cat([features, silence], dim=-1), -(-frames // 2)


def _check_waveforms(config: Any, waves: Tensor) -> tuple[Tensor, int | None]:
    """Waveforms [N, samples] as they are. Raises ValueError where they are too short for one token."""
    tokens, fewest = waves.shape[-1], 1
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        tokens = (tokens - kernel) // stride + 1
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        fewest = (fewest - 1) * stride + kernel
    if tokens < 1:
        raise ValueError(
            f"`input_features` are too short for {config.model_type}: expected at least {fewest} samples, got "
            f"{waves.shape[-1]}. Choose a longer `segment_seconds`."
        )
    return waves, None


ENCODERS: dict[str, EncoderKind] = {
    "audio-spectrogram-transformer": EncoderKind(lambda config: 2),
    "beats": EncoderKind(),
    "clip_vision_model": EncoderKind(lambda config: 1),
    "dinov2": EncoderKind(lambda config: 1),
    "dinov2_with_registers": EncoderKind(lambda config: 1 + config.num_register_tokens),
    "hubert": EncoderKind(fit=_check_waveforms),
    "siglip_vision_model": EncoderKind(),
    "vit": EncoderKind(
        lambda config: 1,
        build=partial(AutoModel.from_config, add_pooling_layer=False),
        load=partial(load_whole, AutoModel.from_pretrained, add_pooling_layer=False),
    ),
    "wav2vec2": EncoderKind(fit=_check_waveforms),
    "whisper": EncoderKind(fit=_fill_whisper_window, build=WhisperEncoder, load=_load_whisper_encoder),
}
"""By `config.model_type`. An encoder that is not here is built by `AutoModel`, and all of its tokens are used."""

PUBLISHED_BEATS = ".pt"
"""The name's ending of a checkpoint in BEATs' own form; it has no folder, so nothing else lies beside it."""

VISION_HALF_OF = ("clip", "siglip")
"""Two-tower models, of which the vision tower is loaded."""


def build_encoder(config: Any) -> PreTrainedModel:
    """Builds an encoder with random weights from its config."""
    return ENCODERS.get(config.model_type, EncoderKind()).build(config)


def load_encoder(name: str, **kwargs: Any) -> PreTrainedModel:
    """Loads a pretrained encoder from a hub id or a folder: of a two-tower model its vision tower, of an
    encoder-decoder its encoder. A `.pt` is a published BEATs checkpoint. `kwargs` go to `from_pretrained`."""
    if name.endswith(PUBLISHED_BEATS):
        return load_beats(name, **kwargs)
    config = load_encoder_config(name)
    return ENCODERS.get(config.model_type, EncoderKind()).load(name, config=config, **kwargs)


def load_encoder_config(name: str) -> Any:
    """The config of the encoder that `load_encoder` gives for a name; loads no weights."""
    if name.endswith(PUBLISHED_BEATS):
        return read_beats_config(name)
    config: Any = AutoConfig.from_pretrained(name)
    return config.vision_config if config.model_type in VISION_HALF_OF else config


def load_feature_extractor(name: str) -> Any:
    """What prepares audio for the encoder at a hub id or a folder, or for a published BEATs checkpoint (`.pt`)."""
    return BeatsFeatureExtractor() if name.endswith(PUBLISHED_BEATS) else AutoFeatureExtractor.from_pretrained(name)


def feature_width(config: Any, layers: list[int] | None) -> int:
    """The last dimension of what `encode` returns for this encoder."""
    width = getattr(config, "hidden_size", None) or config.d_model
    return width * (len(layers) if layers else 1)


def encode(encoder: PreTrainedModel, media: Tensor, layers: list[int] | None, select: str) -> Tensor:
    """Runs an encoder on N images, frames or segments: [N, ...] -> [N, T, D].

    `layers` index `hidden_states` and are joined along D; None takes the last state. `select` "patch" drops the
    leading class and register tokens. Raises ValueError for media whose length the encoder cannot take.
    """
    kind = ENCODERS.get(encoder.config.model_type)
    if kind is None and select == "patch":
        raise ValueError(
            f"`{encoder.config.model_type}` is no encoder whose extra tokens are known: expected one of "
            f"{sorted(ENCODERS)}. Set the feature select to 'all' to use every token."
        )
    kind = kind or EncoderKind()
    media, tokens = kind.fit(encoder.config, media.to(encoder.dtype))
    outputs = encoder(media, output_hidden_states=layers is not None)
    if layers is None:
        features = outputs.last_hidden_state
    else:
        features = torch.cat([outputs.hidden_states[layer] for layer in layers], dim=-1)
    return features[:, kind.leading_tokens(encoder.config) if select == "patch" else 0 : tokens]
