"""How each kind of vision and audio encoder is built and read: one literal table, keyed by model type."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedModel, WhisperModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder


@dataclass(frozen=True)
class EncoderKind:
    """What differs between encoders.

    `leading_tokens(config)` counts the class, distillation and register tokens in front of the patches.
    `build(config)` makes the encoder with random weights, `load(name, config=..., **kwargs)` a pretrained one.
    """

    leading_tokens: Callable[[Any], int] = lambda config: 0
    build: Callable[..., Any] = AutoModel.from_config
    load: Callable[..., Any] = AutoModel.from_pretrained


def _load_whisper_encoder(name: str, **kwargs: Any) -> PreTrainedModel:
    return WhisperModel.from_pretrained(name, **kwargs).get_encoder()


ENCODERS: dict[str, EncoderKind] = {
    "audio-spectrogram-transformer": EncoderKind(lambda config: 2),
    "clip_vision_model": EncoderKind(lambda config: 1),
    "dinov2": EncoderKind(lambda config: 1),
    "dinov2_with_registers": EncoderKind(lambda config: 1 + config.num_register_tokens),
    "hubert": EncoderKind(),
    "siglip_vision_model": EncoderKind(),
    "vit": EncoderKind(
        lambda config: 1,
        build=partial(AutoModel.from_config, add_pooling_layer=False),
        load=partial(AutoModel.from_pretrained, add_pooling_layer=False),
    ),
    "wav2vec2": EncoderKind(),
    "whisper": EncoderKind(build=WhisperEncoder, load=_load_whisper_encoder),
}
"""By `config.model_type`. An encoder that is not here is built by `AutoModel`, and all of its tokens are used."""

VISION_HALF_OF = ("clip", "siglip")
"""Two-tower models, of which the vision tower is loaded."""


def build_encoder(config: Any) -> PreTrainedModel:
    """Builds an encoder with random weights from its config."""
    return ENCODERS.get(config.model_type, EncoderKind()).build(config)


def load_encoder(name: str, **kwargs: Any) -> PreTrainedModel:
    """Loads a pretrained encoder from a hub id or a folder: of a two-tower model its vision tower, of an
    encoder-decoder its encoder. `kwargs` go to `from_pretrained`."""
    config: Any = AutoConfig.from_pretrained(name)
    if config.model_type in VISION_HALF_OF:
        config = config.vision_config
    return ENCODERS.get(config.model_type, EncoderKind()).load(name, config=config, **kwargs)


def feature_width(config: Any, layers: list[int] | None) -> int:
    """The last dimension of what `encode` returns for this encoder."""
    width = getattr(config, "hidden_size", None) or config.d_model
    return width * (len(layers) if layers else 1)


def encode(encoder: PreTrainedModel, media: Tensor, layers: list[int] | None, select: str) -> Tensor:
    """Runs an encoder on N images, frames or segments: [N, ...] -> [N, T, D].

    `layers` index `hidden_states` and are joined along D; None takes the last state. `select` "patch" drops the
    leading class and register tokens.
    """
    kind = ENCODERS.get(encoder.config.model_type)
    if kind is None and select == "patch":
        raise ValueError(
            f"`{encoder.config.model_type}` is no encoder whose extra tokens are known: expected one of "
            f"{sorted(ENCODERS)}. Set the feature select to 'all' to use every token."
        )
    outputs = encoder(media.to(encoder.dtype), output_hidden_states=layers is not None)
    if layers is None:
        features = outputs.last_hidden_state
    else:
        features = torch.cat([outputs.hidden_states[layer] for layer in layers], dim=-1)
    return features[:, kind.leading_tokens(encoder.config) :] if kind and select == "patch" else features
