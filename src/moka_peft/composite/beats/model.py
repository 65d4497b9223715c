"""The BEATs encoder: a spectrogram in patches through a transformer with deep norm (arXiv 2212.09058, section 3.2)."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput

from .attention import BeatsAttention
from .config import BeatsConfig


class PositionConvolution(nn.Module):
    """A grouped convolution over time whose kernel has one learned length (`gain`) per tap: [N, D, T] -> [N, D, T].

    Weight normalisation by hand: torch's two forms store their weights under names that transformers renames.
    """

    def __init__(self, config: BeatsConfig):
        super().__init__()
        width, self.taps, self.groups = config.encoder_embed_dim, config.conv_pos, config.conv_pos_groups
        self.gain = nn.Parameter(torch.empty(1, 1, self.taps))
        self.direction = nn.Parameter(torch.empty(width, width // self.groups, self.taps))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, states: Tensor) -> Tensor:
        kernel = self.direction * (self.gain / self.tap_norms())
        padded = F.pad(states, (self.taps // 2, (self.taps - 1) // 2))
        return F.conv1d(padded, kernel, self.bias, groups=self.groups)

    def tap_norms(self) -> Tensor:
        """The length of each tap's weights: [1, 1, taps]."""
        return torch.linalg.vector_norm(self.direction, dim=(0, 1), keepdim=True)


class BeatsLayer(nn.Module):
    """Attention and feed-forward, each normalised after a residual that is scaled by `alpha` (arXiv 2203.00555)."""

    def __init__(self, config: BeatsConfig, holds_bias: bool):
        super().__init__()
        width, inner = config.encoder_embed_dim, config.encoder_ffn_embed_dim
        self.self_attn = BeatsAttention(config, holds_bias)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.alpha = (2 * config.encoder_layers) ** 0.25 if config.deep_norm else 1.0
        self.dropout = nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)

    def forward(self, states: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        attended, shared_bias = self.self_attn(states, bias)
        states = self.self_attn_layer_norm(self.alpha * states + self.dropout(attended))
        transformed = self.fc2(self.activation_dropout(F.gelu(self.fc1(states))))
        return self.final_layer_norm(self.alpha * states + self.dropout(transformed)), shared_bias


class BeatsEncoder(nn.Module):
    """The transformer over patch embeddings: [N, T, D] -> the states before and after every layer."""

    def __init__(self, config: BeatsConfig):
        super().__init__()
        self.pos_conv = nn.Sequential(PositionConvolution(config), nn.GELU())
        self.layer_norm = nn.LayerNorm(config.encoder_embed_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(BeatsLayer(config, holds_bias=index == 0) for index in range(config.encoder_layers))
        self.layerdrop, self.gradient_decay = config.encoder_layerdrop, config.layer_wise_gradient_decay_ratio

    def forward(self, states: Tensor) -> list[Tensor]:
        states = states + self.pos_conv(states.transpose(1, 2)).transpose(1, 2)
        states = self.dropout(self.layer_norm(states))
        outputs, bias = [states], None
        for layer in self.layers:
            inputs = _scale_gradient(states, self.gradient_decay)
            states, bias = layer(inputs, bias)
            states = self._maybe_skip(inputs, states)
            outputs.append(states)
        return outputs

    def _maybe_skip(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """What leaves a layer: in training, at times what entered it.

        A skipped layer has run, so that its gradients are zeros rather than missing and ranks stay in step.
        """
        if not self.training or self.layerdrop == 0:
            return outputs
        return torch.where(torch.rand((), device=inputs.device) < self.layerdrop, inputs, outputs)


class BeatsModel(PreTrainedModel):
    """BEATs as a transformers model: what `BeatsFeatureExtractor` makes of audio -> one state per patch.

    Segments of a batch have one length: there is no padding mask, what is short is padded with silence before.
    A composite passes the attention it is asked for on to its encoders. This one accepts any and always computes
    torch's scaled dot product attention: a bias that depends on the query fits no other kernel.
    """

    config_class = BeatsConfig
    config: BeatsConfig
    base_model_prefix = ""
    main_input_name = "input_features"
    input_modalities = "audio"
    _no_split_modules = ["BeatsLayer"]
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, config: BeatsConfig):
        super().__init__(config)
        patch = config.input_patch_size
        self.patch_embedding = nn.Conv2d(1, config.embed_dim, patch, stride=patch, bias=config.conv_bias)
        self.layer_norm = nn.LayerNorm(config.embed_dim)
        has_proj = config.embed_dim != config.encoder_embed_dim
        self.post_extract_proj = nn.Linear(config.embed_dim, config.encoder_embed_dim) if has_proj else None
        self.dropout_input = nn.Dropout(config.dropout_input)
        self.encoder = BeatsEncoder(config)
        self.post_init()

    def forward(
        self, input_features: Tensor, output_hidden_states: bool | None = None, **kwargs: Any
    ) -> BaseModelOutput:
        """`input_features` [N, frames, bins] -> states [N, T, D], T = (frames // patch) * (bins // patch).

        States go through the bins of a patch's time before the next: low frequencies first. Frames that fill no
        patch are left out. `hidden_states` are what enters the first layer, then what leaves each layer. Raises
        ValueError where there are too few frames for a patch or another number of bins.
        """
        self._check(input_features)
        patches = self.patch_embedding(input_features[:, None]).flatten(2).transpose(1, 2)  # [N, T, embed_dim]
        states = self.layer_norm(patches)
        if self.post_extract_proj is not None:
            states = self.post_extract_proj(states)
        outputs = self.encoder(self.dropout_input(states))
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return BaseModelOutput(last_hidden_state=outputs[-1], hidden_states=tuple(outputs) if wanted else None)

    def _check(self, input_features: Tensor) -> None:
        patch, bins = self.config.input_patch_size, self.config.num_mel_bins
        if input_features.ndim != 3 or input_features.shape[2] != bins or input_features.shape[1] < patch:
            raise ValueError(
                f"`input_features` has the wrong shape: expected [segments, frames, {bins}] with at least {patch} "
                f"frames, got {list(input_features.shape)}. Make it with `BeatsFeatureExtractor`; frames are 10 ms."
            )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Small random weights, to stand in for a checkpoint's: pre-training starts from deep norm's scales instead."""
        if isinstance(module, PositionConvolution):
            width = self.config.encoder_embed_dim
            init.normal_(module.direction, std=math.sqrt(4 / (module.taps * width)))
            init.copy_(module.gain, module.tap_norms())
            init.zeros_(module.bias)
        elif isinstance(module, BeatsAttention):
            init.ones_(module.grep_a)
        else:
            super()._init_weights(module)


def _scale_gradient(states: Tensor, factor: float) -> Tensor:
    """The same values, whose gradient is multiplied by `factor` on its way back."""
    if not states.requires_grad or factor == 1:
        return states
    scaled = states.view_as(states)
    scaled.register_hook(lambda gradient: gradient * factor)
    return scaled
