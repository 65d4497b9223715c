"""Forward: the arguments of one call of a model, as the routing and its checks read them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Forward:
    """What the checks and the routing need to know of one call of the model.

    `shape` (batch, sequence); () where the input tells neither. `cached_length`: positions already in the cache.
    `fills_cache`: whether this forward writes a cache that later forwards read. `logits_to_keep`: how many last
    columns give logits, 0 for all or for a choice of columns. `is_split`: whether other processes hold the rest of
    these rows (sequence parallelism passes `shift_labels`). `position_ids` [B, S]: where restarting ones would tell
    that a row is packed, as transformers reads them: without a mask and without a cache.
    """

    shape: tuple[int, ...]
    input_ids: Tensor | None
    attention_mask: Tensor | None
    labels: Tensor | None
    cached_length: int
    fills_cache: bool
    logits_to_keep: int
    is_training: bool
    is_split: bool
    position_ids: Tensor | None = None

    @classmethod
    def of(cls, module: nn.Module, args: tuple, kwargs: dict) -> Forward:
        """Reads the arguments of `module`'s forward."""
        first = args[0] if args and isinstance(args[0], Tensor) else None
        ids = kwargs.get("input_ids")
        if ids is None and first is not None and not first.is_floating_point() and first.dim() == 2:
            ids = first
        embeds = kwargs.get("inputs_embeds", first if first is not None and first.is_floating_point() else None)
        shaped = ids if ids is not None else embeds
        cache = given_cache(kwargs)
        cached_length = _cached_length(cache)
        kept = kwargs.get("logits_to_keep")
        return cls(
            shape=() if shaped is None or shaped.dim() < 2 else tuple(shaped.shape[:2]),
            input_ids=ids,
            attention_mask=_padding_mask(kwargs.get("attention_mask"), ids, cached_length),
            labels=kwargs.get("labels"),
            cached_length=cached_length,
            fills_cache=_fills_cache(module, kwargs, cache),
            logits_to_keep=kept if isinstance(kept, int) else 0,
            is_training=module.training and torch.is_grad_enabled(),
            is_split=kwargs.get("shift_labels") is not None,
            position_ids=_plain_positions(kwargs) if cache is None else None,
        )


def given_cache(kwargs: dict) -> Any:
    """The cache among the keywords of a forward or of `generate`, whatever its name: transformers 5.24 changed it."""
    given = kwargs.get("past_key_values")
    return given if given is not None else next((v for v in kwargs.values() if hasattr(v, "get_seq_length")), None)


def named_arguments(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """The same arguments of `module`'s forward, all but the first by name."""
    if len(args) < 2:
        return args, kwargs
    names = _positional_names(type(module))[: len(args)]
    if len(names) < len(args) or kwargs.keys() & set(names):  # the forward itself says what is wrong
        return args, kwargs
    return args[:1], {**dict(zip(names[1:], args[1:], strict=True)), **kwargs}


@cache
def _positional_names(kind: type[nn.Module]) -> list[str]:
    parameters = list(signature(kind.forward).parameters.values())[1:]
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


def _padding_mask(mask: Any, ids: Tensor | None, start: int) -> Tensor | None:
    """The 2-D padding mask; of a prepared mask [B, 1, S, keys] (or a dict of them) who may see itself.

    Keys are the positions from 0 on; of a static sliding window that is full, the last ones.
    """
    if isinstance(mask, dict):
        mask = next((m for m in mask.values() if m is not None), None)
    if mask is None or ids is None or (isinstance(mask, Tensor) and mask.dim() == 2):
        return mask
    length = ids.shape[1]
    if not isinstance(mask, Tensor) or mask.dim() != 4 or mask.shape[2] != length or mask.shape[3] < length:
        got = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(
            f"`attention_mask`: MokA cannot read padding from {got}. Pass the 2-D mask [batch, sequence], or "
            "routing=Routing(...) together with this one."
        )
    stop = min(start + length, mask.shape[3])
    itself = mask[:, 0, :, stop - length : stop].diagonal(dim1=-2, dim2=-1)
    return (itself if itself.dtype == torch.bool else itself >= 0).expand(ids.shape[0], -1)


def _plain_positions(kwargs: dict) -> Tensor | None:
    """The positions [B, S] that transformers would split a packed row by: of M-RoPE's, the first of four axes."""
    positions = kwargs.get("position_ids")
    if kwargs.get("attention_mask") is not None or not isinstance(positions, Tensor):
        return None
    if positions.dim() == 3:
        return positions[0] if positions.shape[0] == 4 else None
    return positions


def _cached_length(cache: Any) -> int:
    if cache is None:
        return 0
    return int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else int(cache[0][0].shape[-2])


def _fills_cache(module: nn.Module, kwargs: dict, cache: Any) -> bool:
    if cache is not None or kwargs.get("use_cache"):
        return True
    default = getattr(getattr(module, "config", None), "use_cache", False)
    wanted = default if kwargs.get("use_cache") is None else False
    return bool(wanted) and not module.training and kwargs.get("labels") is None
