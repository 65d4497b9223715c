"""The base of QLoRA: a decoder's Linears as bitsandbytes nf4."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel


def is_available() -> bool:
    """Whether bitsandbytes is installed."""
    return importlib.util.find_spec("bitsandbytes") is not None


def quantize(model: PreTrainedModel) -> None:
    """Replaces every Linear of the decoder's layers in place, one at a time: no second copy of the model exists.

    Towers, embeddings and head keep their dtype. PEFT's LoRA takes its 4-bit layer where the model says it is 4-bit.
    """
    decoder: Any = model.get_decoder()
    for layer in decoder.layers:
        for name in [name for name, module in layer.named_modules() if type(module) is nn.Linear]:
            parent, _, child = name.rpartition(".")
            block = layer.get_submodule(parent)
            setattr(block, child, _to_nf4(getattr(block, child)))
    model.is_loaded_in_4bit = True  # pyright: ignore[reportAttributeAccessIssue]


def _to_nf4(linear: nn.Linear) -> nn.Module:
    from bitsandbytes.nn import Linear4bit, Params4bit

    sizes = (linear.in_features, linear.out_features, linear.bias is not None)
    quantized = Linear4bit(*sizes, compute_dtype=linear.weight.dtype, quant_type="nf4", device=torch.device("meta"))
    quantized.weight = Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4", module=quantized)
    quantized.bias = linear.bias
    return quantized.to(linear.weight.device)  # this is where bitsandbytes rounds
