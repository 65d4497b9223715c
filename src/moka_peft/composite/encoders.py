"""How each kind of vision and audio encoder is built and read: one literal table, keyed by model type."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel, WhisperModel


@dataclass(frozen=True)
class EncoderKind:
    """What differs between encoders.

    `leading_tokens(config)`: class, distillation and register tokens in front of the patches. `settings`: keywords
    of the model's constructor. `part(model)`: the encoder inside a model that has more, `part_class(config)` builds
    it alone.
    """

    leading_tokens: Callable[[Any], int] = lambda config: 0
    settings: dict[str, Any] = field(default_factory=dict)
    part: Callable[[Any], nn.Module] | None = None


ENCODERS: dict[str, EncoderKind] = {
    "audio-spectrogram-transformer": EncoderKind(leading_tokens=lambda config: 2),
    "clip_vision_model": EncoderKind(leading_tokens=lambda config: 1),
    "dinov2": EncoderKind(leading_tokens=lambda config: 1),
    "dinov2_with_registers": EncoderKind(leading_tokens=lambda config: 1 + config.num_register_tokens),
    "hubert": EncoderKind(),
    "siglip_vision_model": EncoderKind(),
    "vit": EncoderKind(leading_tokens=lambda config: 1, settings={"add_pooling_layer": False}),
    "wav2vec2": EncoderKind(),
    "whisper": EncoderKind(part=lambda model: model.get_encoder()),
}

VISION_HALF_OF = ("clip", "siglip")
"""Two-tower models that name their vision tower's config `vision_config`."""


def build_encoder(config: Any) -> PreTrainedModel:
    """Builds an encoder with random weights from its config."""
    kind = ENCODERS.get(config.model_type, EncoderKind())
    if config.model_type == "whisper":
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        return WhisperEncoder(config)
    return AutoModel.from_config(config, **kind.settings)


def load_encoder(name: str, **load_kwargs: Any) -> PreTrainedModel:
    """Loads a pretrained encoder from a hub id or a folder: of a two-tower model its vision tower, of an
    encoder-decoder its encoder. `load_kwargs` go to `from_pretrained`."""
    config = AutoConfig.from_pretrained(name)
    if config.model_type in VISION_HALF_OF:
        config = config.vision_config
    kind = ENCODERS.get(config.model_type, EncoderKind())
    if config.model_type == "whisper":
        return WhisperModel.from_pretrained(name, **load_kwargs).get_encoder()
    return AutoModel.from_pretrained(name, config=config, **kind.settings, **load_kwargs)


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
