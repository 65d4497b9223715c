"""The settings of a BEATs encoder, under the names that its published checkpoints use."""

from typing import Any

from transformers import PreTrainedConfig

FIXED = {
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
}
"""Settings that have one value in every published checkpoint, the only one that is implemented."""


class BeatsConfig(PreTrainedConfig):
    """Describes a BEATs encoder; the defaults are those of iter3+ (BEATs, arXiv 2212.09058, section 4.2).

    `embed_dim` is the width of a patch embedding, `encoder_embed_dim` (or `hidden_size`) that of the encoder.
    `conv_pos` is the kernel of the convolution that encodes position. Distances in patches fall into
    `num_buckets`, half for each direction, the last for `max_distance` and beyond. While the encoder trains, the
    gradient shrinks by `layer_wise_gradient_decay_ratio` at every layer, and a layer is skipped with probability
    `encoder_layerdrop`. Raises ValueError for a variant that was never published.
    """

    model_type = "beats"
    attribute_map = {
        "hidden_size": "encoder_embed_dim",
        "intermediate_size": "encoder_ffn_embed_dim",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
    }

    num_mel_bins: int = 128
    input_patch_size: int = 16
    embed_dim: int = 512
    conv_bias: bool = False
    encoder_layers: int = 12
    encoder_embed_dim: int = 768
    encoder_ffn_embed_dim: int = 3072
    encoder_attention_heads: int = 12
    activation_fn: str = "gelu"
    layer_norm_first: bool = False
    deep_norm: bool = True
    conv_pos: int = 128
    conv_pos_groups: int = 16
    relative_position_embedding: bool = True
    gru_rel_pos: bool = True
    num_buckets: int = 320
    max_distance: int = 800
    dropout_input: float = 0.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    encoder_layerdrop: float = 0.05
    layer_wise_gradient_decay_ratio: float = 0.6

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        for name, value in FIXED.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"`{name}` is not supported: expected {value!r}, as in every published BEATs checkpoint, got "
                    f"{getattr(self, name)!r}. Use one of these."
                )
        for divisor in ("encoder_attention_heads", "conv_pos_groups"):
            if self.encoder_embed_dim % getattr(self, divisor):
                raise ValueError(
                    f"`{divisor}` does not fit: expected a divisor of `encoder_embed_dim` {self.encoder_embed_dim}, "
                    f"got {getattr(self, divisor)}. Change one of them."
                )
