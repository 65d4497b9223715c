"""Weights for tiny models large enough that media and text matter: with the usual 0.02 they drown in rounding."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel

from .layout import BOS, EOS, FIRST_MARK, FIRST_TEXT, LAST_MARK, PAD

VOCABULARY = 256
TEXT = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=VOCABULARY,
    max_position_embeddings=512,
    pad_token_id=PAD,
    bos_token_id=BOS,
    eos_token_id=EOS,
)
TOWER = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
NEVER_GENERATED = [*range(FIRST_TEXT), *range(FIRST_MARK, LAST_MARK + 1)]
MIXER_SCALES = ("A_log", "dt_bias")  # of linear attention: its decay, drawn by the model itself


def builder(model_class: type[PreTrainedModel], configure: Callable[[], PreTrainedConfig]) -> Callable:
    """A function that builds the seeded model in eval mode; it generates text alone and never ends early."""

    def build() -> PreTrainedModel:
        torch.manual_seed(0)
        model = model_class(configure()).eval()
        enliven(model)
        for config in (model.config, model.config.get_text_config()):
            config.pad_token_id = PAD
        for module in model.modules():
            if isinstance(module, GenerationMixin):
                settings = module.generation_config
                settings.pad_token_id, settings.eos_token_id, settings.suppress_tokens = PAD, None, NEVER_GENERATED
        return model

    return build


@torch.no_grad()
def enliven(model: nn.Module) -> None:
    """Draws every weight so that each layer keeps the scale of what it gets; norms stay, media gates open."""
    drawn: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if name in MIXER_SCALES or "Norm" in type(module).__name__ or id(parameter) in drawn:
                continue
            drawn.add(id(parameter))  # a head tied to the embeddings comes after them
            if isinstance(module, nn.Embedding):  # small, or a tied head would repeat the last token
                parameter.normal_(0, 0.25 / float(getattr(module, "embed_scale", 1.0)))
            elif parameter.dim() < 2:
                parameter.normal_(0, 0.1 if "bias" in name else 0.5)
            else:
                parameter.normal_(0, _fan_in(module, parameter) ** -0.5)


def _fan_in(module: nn.Module, parameter: Tensor) -> int:
    """Inputs of one output: all but the first dimension of a convolution, else the last one."""
    return parameter[0].numel() if hasattr(module, "kernel_size") else parameter.shape[-1]


def dead_parameters(model: nn.Module) -> list[str]:
    """Names of the parameters that are all zero, apart from biases and the offsets of norms."""
    return [
        name
        for name, p in model.named_parameters()
        if not p.any() and "bias" not in name and "norm" not in name.lower()
    ]
