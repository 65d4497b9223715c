"""Runs a model's operators on the meta device with the memory that they have on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


@contextmanager
def as_on_gpu(autocast: torch.dtype | None = None) -> Iterator[None]:
    """Attention keeps what a GPU's fused kernels keep, and tests of values, which a meta tensor lacks, hold.

    The only test that models make in a training forward is whether all positions of a row follow each other.
    autocast: Linears take and give that dtype; torch has no autocast on the meta device. Patches, not modes of torch,
    as these do not reach into what checkpointing computes again.
    """
    with ExitStack() as stack:
        stack.enter_context(patch.object(F, "scaled_dot_product_attention", _attention))
        if autocast is not None:
            stack.enter_context(patch.object(F, "linear", partial(_linear, F.linear, autocast)))
        stack.enter_context(_TestsHold())
        yield


class _TestsHold(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is Tensor.__bool__ and args[0].is_meta:
            return True
        return func(*args, **(kwargs or {}))


def _linear(
    linear: Callable[..., Tensor], dtype: torch.dtype, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    return linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`scaled_dot_product_attention` [B, H, S, D], in memory alone."""
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.empty_like(attn_mask, dtype=query.dtype)  # torch turns it into what is added to scores
    return _Fused.apply(query, key, value, attn_mask)


class _Fused(torch.autograd.Function):
    """Flash attention: keeps its inputs, its output and a float32 per query; no scores."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        batch, heads, length, _ = query.shape
        output = query.new_empty(batch, length, heads, value.shape[-1]).transpose(1, 2)
        ctx.save_for_backward(query, key, value, mask, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *_ = ctx.saved_tensors
        summed = torch.empty_like(query, dtype=torch.float32)  # the kernel adds up the queries' gradient in it
        found = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None
        del summed
        return found
