"""A published architecture at a size that trains on one CPU core in seconds: the same classes and kinds of layers."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

WIDTH, HEADS, DECODER_LAYERS = 32, 4, 2
"""Encoders keep their depth, since recipes name layers of theirs."""

SIZES = {
    "hidden_size": WIDTH, "d_model": WIDTH, "encoder_embed_dim": WIDTH, "output_dim": WIDTH, "out_hidden_size": WIDTH,
    "intermediate_size": 48, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "encoder_ffn_embed_dim": 48,
    "embed_dim": 16, "projection_dim": 16, "codevector_dim": 16, "proj_codevector_dim": 16,
    "head_dim": WIDTH // HEADS, "num_attention_heads": HEADS, "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS, "num_heads": HEADS, "decoder_layers": 1,
    "conv_pos": 16, "conv_pos_groups": 2, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
    "image_size": 28, "window_size": 28,  # pixels
    "max_source_positions": 100,  # 20 ms each
    "n_window": 50,  # 10 ms each
    "image_seq_length": 4,
}  # fmt: skip
"""By the names that configs have for them; a size that is smaller already stays."""

UNREAD_WORDS = 64
"""Vocabulary of a decoder that no tokenizer reaches: the text half of a vision tower, what Whisper writes."""


def shrink(
    config: PreTrainedConfig, tokenizer: Any = None, tokens: Mapping[str, str] | None = None
) -> PreTrainedConfig:
    """The config of a tiny model of the same class.

    tokenizer: of its text decoder, which gets two layers. tokens: which of its tokens a field of the config names.
    """
    fields = _shrunk(config.to_dict())
    decoder = fields["text_config"] if "text_config" in fields else fields
    if tokenizer is not None:
        decoder["num_hidden_layers"] = DECODER_LAYERS
        if decoder.get("layer_types"):
            decoder["layer_types"] = decoder["layer_types"][:DECODER_LAYERS]
    if "vocab_size" in decoder:
        decoder["vocab_size"] = UNREAD_WORDS if tokenizer is None else len(tokenizer)
    for section in (fields, decoder):
        for name in ("bos", "eos", "pad", "decoder_start"):
            if section.get(f"{name}_token_id") is not None:
                section[f"{name}_token_id"] = getattr(tokenizer, f"{name}_token_id", None if tokenizer else 0)
    for name, token in (tokens or {}).items():
        fields[name] = tokenizer.convert_tokens_to_ids(token)  # pyright: ignore[reportOptionalMemberAccess]
    return type(config).from_dict(fields)


def _shrunk(fields: dict[str, Any]) -> dict[str, Any]:
    """The sizes of one config and of those inside it."""
    small: dict[str, Any] = {
        key: _shrunk(value) if key.endswith("_config") and value else value for key, value in fields.items()
    }
    small |= {key: min(size, small[key]) for key, size in SIZES.items() if small.get(key)}
    if groups := fields.get("num_key_value_heads"):
        small["num_key_value_heads"] = HEADS if groups == fields["num_attention_heads"] else HEADS // 2
    if "conv_dim" in small:
        small["conv_dim"] = [8] * len(small["conv_dim"])
    for name in ("rope_parameters", "rope_scaling"):
        if (small.get(name) or {}).get("mrope_section"):
            small[name] = {**small[name], "mrope_section": [2, 1, 1]}  # together half of a head's width
    return small
