"""Which module computes the parts of an adapted Linear."""

from __future__ import annotations

from types import ModuleType

from torch import Tensor

from . import eager

IMPLEMENTATIONS = ("auto", "reference", "eager", "triton")


def parts_for(impl: str, x: Tensor, rank: int) -> ModuleType:
    """The module with the parts of an adapted Linear on x: Triton's on CUDA, if its results were found to be right.

    Raises ValueError where `impl` is "triton" and cannot be used.
    """
    if impl == "eager" or (impl == "auto" and x.device.type == "cpu"):
        return eager
    from . import triton
    from .triton.available import require, usable

    if impl == "triton":
        require(x.device, x.dtype, rank)
        return triton
    return triton if usable(x.device, x.dtype, rank) else eager
