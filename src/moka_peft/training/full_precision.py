"""Parts that train in full keep float32 weights in a model of half precision, as its adapters do."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

HALF = (torch.bfloat16, torch.float16)


def train_in_float32(adapted: nn.Module) -> None:
    """Turns the trained copies of modules into float32; they take and give what the model's own modules do.

    A step of 1e-5 is lost on most weights of bfloat16, which has three decimal digits, and far too large on the rest.
    """
    wrappers = [module for module in adapted.modules() if isinstance(module, ModulesToSaveWrapper)]
    copies = [copy for wrapper in wrappers for copy in wrapper.modules_to_save.values()]
    dtypes = [next((own.dtype for own in copy.parameters() if own.is_floating_point()), None) for copy in copies]
    for copy, dtype in zip(copies, dtypes, strict=True):  # tied ones share a weight: all were asked first
        if dtype in HALF:
            copy.float()
            copy.register_forward_pre_hook(_take, with_kwargs=True)
            copy.register_forward_hook(partial(_give, dtype))


def _take(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    return _cast(args, torch.float32), _cast(kwargs, torch.float32)


def _give(dtype: torch.dtype, module: nn.Module, args: tuple, output: Any) -> Any:
    return _cast(output, dtype)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """`value` with all its tensors of floating point in `dtype`, however they are nested."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, Mapping):
        cast = {name: _cast(inner, dtype) for name, inner in value.items()}
        return cast if type(value) is dict else type(value)(**cast)
    if isinstance(value, tuple | list):
        return type(value)(_cast(inner, dtype) for inner in value)
    return value
