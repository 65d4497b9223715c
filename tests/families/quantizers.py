"""Linears as the libraries that save memory store them, on the CPU."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def to_4bit(linear: nn.Linear) -> nn.Module:
    from bitsandbytes.nn import Linear4bit

    new = Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        quant_type="nf4",
        compute_dtype=linear.weight.dtype,
    )
    new.support_avx512bf16_for_cpu = False  # its packed layout takes widths of 64 and more only
    new.load_state_dict(linear.state_dict())
    return new.to("cpu").eval()


def to_8bit(linear: nn.Linear) -> nn.Module:
    from bitsandbytes.nn import Linear8bitLt

    new = Linear8bitLt(
        linear.in_features, linear.out_features, bias=linear.bias is not None, has_fp16_weights=False, threshold=0.0
    )
    new.load_state_dict(linear.state_dict())
    return new.to("cpu").eval()


def to_int8(linear: nn.Linear) -> nn.Module:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    holder = nn.Sequential(linear)
    quantize_(holder, Int8WeightOnlyConfig())
    return holder[0]


KINDS: dict[str, Callable[[nn.Linear], nn.Module]] = {"4-bit": to_4bit, "8-bit": to_8bit, "int8": to_int8}
