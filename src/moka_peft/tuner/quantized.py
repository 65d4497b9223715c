"""Weights of quantized bases: read as floats, replaced by what those round to, and put back bit for bit."""

from __future__ import annotations

from typing import Any

import torch
from peft.utils.integrations import dequantize_bnb_weight
from torch import Tensor, nn

ROUNDED_KINDS = ("Params4bit", "Int8Params", "Int8Tensor")  # bitsandbytes 4-bit and 8-bit, torchao int8


def is_quantized(base: Any) -> bool:
    """Whether the weight of `base` is stored as something else than the floats it stands for."""
    weight = base.weight.data
    is_narrow = not weight.is_floating_point() or weight.dtype.itemsize == 1  # 8-bit floats have no addition
    return type(base) is not nn.Linear or is_narrow or type(weight).__module__.startswith("torchao")


def stored_weight(base: Any) -> dict[str, Any]:
    """What `restore_weight` needs to put the present weight back."""
    state = getattr(base, "state", None)  # bitsandbytes 8-bit keeps the numbers there after a first forward
    return {"weight": base.weight, "CB": getattr(state, "CB", None), "SCB": getattr(state, "SCB", None)}


def restore_weight(base: Any, stored: dict[str, Any]) -> None:
    """Puts the weight of `stored_weight` back, on the device where the present one is."""
    device = base.weight.device
    base.weight = stored["weight"] if stored["weight"].device == device else stored["weight"].to(device)
    if hasattr(base, "state"):
        for name in ("CB", "SCB"):
            value = stored[name]
            setattr(base.state, name, value if value is None else value.to(device))


def dense_weight(base: Any) -> Tensor:
    """The weight [O, I] as floats. Raises ValueError on a kind of quantization that is not known here."""
    kind = _kind(base)
    if kind == "Int8Tensor":
        return base.weight.data.dequantize()
    state: Any = getattr(base.weight, "quant_state", None)
    if getattr(state, "packing_format_for_cpu", False):  # since a first forward; only the layer itself reads it then
        return _through_forward(base).to(state.original_dtype)
    return dequantize_bnb_weight(base.weight, state=getattr(base, "state", None))


@torch.no_grad()
def _through_forward(base: Any) -> Tensor:
    """The weight [O, I] as what the layer makes of unit vectors."""
    unit = torch.eye(base.in_features, device=base.weight.device)
    return (base(unit) - (0 if base.bias is None else base.bias)).T.contiguous()


def round_weight(base: Any, dense: Tensor) -> None:
    """Makes `dense` [O, I], rounded the way the present weight is, the weight of `base`."""
    base.weight = {"Params4bit": _round_4bit, "Int8Params": _round_8bit, "Int8Tensor": _round_torchao}[_kind(base)](
        base.weight, dense
    )
    if hasattr(base, "state"):
        base.state.CB = base.state.SCB = None
        base.init_8bit_state()


def _kind(base: Any) -> str:
    kind = next((type(w).__name__ for w in (base.weight, base.weight.data) if type(w).__name__ in ROUNDED_KINDS), None)
    if kind is None:
        raise ValueError(
            f"`merge_adapter`: a {type(base).__name__} with a {type(base.weight.data).__name__} cannot be merged into: "
            f"expected one of {', '.join(ROUNDED_KINDS)}. Use the adapter unmerged."
        )
    return kind


def _round_4bit(weight: Any, dense: Tensor) -> Any:
    names = ("quant_type", "blocksize", "compress_statistics", "quant_storage")
    options = {name: getattr(weight, name) for name in names}
    return type(weight)(dense.cpu(), requires_grad=False, **options).to(weight.device)


def _round_8bit(weight: Any, dense: Tensor) -> Any:
    return type(weight)(dense.cpu(), requires_grad=False, has_fp16_weights=False).to(weight.device)


def _round_torchao(weight: Any, dense: Tensor) -> Any:
    from torchao.quantization import PerRow, PerTensor

    stored = weight.data
    per_row = list(stored.block_size) == [1, dense.shape[1]]
    granularity = PerRow() if per_row else PerTensor()
    if not per_row and list(stored.block_size) != list(dense.shape):
        raise ValueError(
            f"`merge_adapter`: torchao blocks of {list(stored.block_size)} cannot be rounded again: expected one scale "
            "per row or per tensor. Use the adapter unmerged."
        )
    rounded = type(stored).from_hp(
        dense.to(stored.dtype), granularity, act_quant_kwargs=getattr(stored, "act_quant_kwargs", None)
    )
    return nn.Parameter(rounded, requires_grad=False)
