"""Whether a base layer is nothing but a frozen matmul, so that its adapter may do it along with its own."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook


def is_plain(base: Any) -> bool:
    """True for a frozen nn.Linear of ordinary weights whose forward is its own: no hook, no wrapper, no quantization.

    Hooks bring offloaded or partitioned weights, or are the user's: then the layer itself must be called.
    """
    if type(base) is not nn.Linear or "forward" in base.__dict__ or _has_any_global_hook():
        return False
    hooks = (base._forward_hooks, base._forward_pre_hooks, base._backward_hooks, base._backward_pre_hooks)
    return not any(hooks) and all(_is_frozen(tensor) for tensor in (base.weight, base.bias) if tensor is not None)


def _is_frozen(tensor: Tensor) -> bool:
    is_ordinary = type(tensor) in (nn.Parameter, Tensor) and not tensor.is_meta
    return is_ordinary and not tensor.requires_grad and tensor.is_floating_point() and tensor.dtype.itemsize > 1
