"""kept_bytes: what a training forward keeps for its backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def saved_tensors(forward: Callable[[], Any]) -> list[Tensor]:
    """The tensors that autograd saves in `forward`, one of each storage."""
    saved: dict[int, Tensor] = {}  # holds the tensors: a storage that was freed would give its address to another

    def keep(tensor: Tensor) -> Tensor:
        saved[_address(tensor)] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = forward()
    del output
    return list(saved.values())


def kept_bytes(forward: Callable[[], Any], left_out: Iterable[Tensor]) -> int:
    """Bytes of what `forward` saves, the storages of `left_out` not counted: what is there anyway, as parameters."""
    known = {_address(tensor) for tensor in left_out}
    saved = [tensor for tensor in saved_tensors(forward) if _address(tensor) not in known]
    return sum(tensor.untyped_storage().nbytes() for tensor in saved)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
