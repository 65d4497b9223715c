"""Weights that accelerate keeps on the CPU or on disk until their module runs (`device_map` with offload)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def execution_device(module: nn.Module) -> torch.device | None:
    """Where accelerate brings the weights of `module` to compute; None where they are not kept elsewhere."""
    hook = _offload_hook(module)
    return None if hook is None or hook.execution_device is None else torch.device(hook.execution_device)


def weight_of(module: nn.Module) -> Tensor:
    """The module's weight, fetched to where it computes; its forward, which would fetch it, need not run."""
    weight: Any = module.weight
    hook = _offload_hook(module) if weight.is_meta else None
    if hook is None:
        return weight
    hook.pre_forward(module)
    weight = module.weight
    hook.post_forward(module, None)
    return weight


def _offload_hook(module: nn.Module) -> Any:
    """accelerate's AlignDevicesHook on `module` where it offloads, also as one of several hooks."""
    hook = getattr(module, "_hf_hook", None)
    return next((each for each in getattr(hook, "hooks", [hook]) if getattr(each, "offload", False)), None)
