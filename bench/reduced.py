"""A composite's architecture with fewer layers and narrower, so that its code can be tried on a small CPU."""

from __future__ import annotations

from typing import Any

HEADS = 4
HEAD_NAMES = ("num_attention_heads", "num_key_value_heads", "encoder_attention_heads", "decoder_attention_heads")
WIDTHS = ("hidden_size", "d_model", "encoder_embed_dim", "embed_dim")
INNER = ("intermediate_size", "encoder_ffn_dim", "encoder_ffn_embed_dim", "decoder_ffn_dim")
LAYERS = ("num_hidden_layers", "encoder_layers", "decoder_layers")


def reduce_architecture(config: Any, layers: int, width: int) -> Any:
    """`config`, changed: every part has `layers` layers of `width`, its vocabulary and its media's shapes stay."""
    for part in ("text_config", "vision_config", "audio_config"):
        if getattr(config, part, None) is not None:
            _reduce(getattr(config, part), layers, width)
    for part in ("vision", "audio"):
        projector = getattr(config, f"{part}_projector", None)
        if projector and projector["type"] == "qformer":
            sizes = {"hidden_size": width, "num_attention_heads": HEADS, "intermediate_size": 2 * width}
            setattr(config, f"{part}_projector", projector | sizes)
        if getattr(config, f"{part}_feature_layers", None):
            setattr(config, f"{part}_feature_layers", [layers])
    return config


def _reduce(config: Any, layers: int, width: int) -> None:
    for names, value in ((LAYERS, layers), (WIDTHS, width), (INNER, 2 * width), (HEAD_NAMES, HEADS)):
        for name in names:
            if getattr(config, name, None) is not None:
                setattr(config, name, value)
    if getattr(config, "head_dim", None) is not None:
        config.head_dim = width // HEADS
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = config.layer_types[:layers]
