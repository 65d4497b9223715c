"""Forward: the arguments of one call of a model, as the routing and its checks read them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Forward:
    """What the checks and the routing need to know of one call of the model.

    `shape` (batch, sequence); () where the input tells neither. `mask`: as given. `cache`: the one that this forward
    continues or fills, if one is given. `fills_cache`: whether this forward writes a cache that later forwards read.
    `logits_to_keep`: how many last columns give logits, 0 for all or for a choice of columns. `is_split`: whether other
    processes hold the rest of these rows (sequence parallelism passes `shift_labels`).
    """

    shape: tuple[int, ...]
    input_ids: Tensor | None
    mask: Any
    positions: Any
    labels: Tensor | None
    cache: Any
    fills_cache: bool
    logits_to_keep: int
    is_training: bool
    is_split: bool

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
        kept = kwargs.get("logits_to_keep")
        return cls(
            shape=() if shaped is None or shaped.dim() < 2 else tuple(shaped.shape[:2]),
            input_ids=ids,
            mask=kwargs.get("attention_mask"),
            positions=kwargs.get("position_ids"),
            labels=kwargs.get("labels"),
            cache=cache,
            fills_cache=_fills_cache(module, kwargs, cache),
            logits_to_keep=kept if isinstance(kept, int) else 0,
            is_training=module.training and torch.is_grad_enabled(),
            is_split=kwargs.get("shift_labels") is not None,
        )

    @cached_property
    def cached_length(self) -> int:
        """Positions already in the cache. Not for a compiled graph: a static cache counts them on the device."""
        return int(_cached_length(self.cache))

    @property
    def attention_mask(self) -> Tensor | None:
        """[B, >= S] where the padding is, read only when asked for; None: there is none."""
        if self.mask is None or self.input_ids is None or (isinstance(self.mask, Tensor) and self.mask.dim() == 2):
            return self.mask
        start = _cached_length(self.cache) if torch.compiler.is_compiling() else self.cached_length
        return _padding_mask(self.mask, self.input_ids, start)

    @property
    def position_ids(self) -> Tensor | None:
        """[B, S] where restarting ones would tell that a row is packed, as transformers reads them: without a mask and
        without a cache. Of M-RoPE's, the first of four axes."""
        if self.cache is not None or self.mask is not None or not isinstance(self.positions, Tensor):
            return None
        if self.positions.dim() == 3:
            return self.positions[0] if self.positions.shape[0] == 4 else None
        return self.positions


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


def _padding_mask(mask: Any, ids: Tensor, start: int | Tensor) -> Tensor | None:
    """Of a prepared mask [B, 1, S, keys] (or a dict of them) who may see itself.

    Keys are the positions from 0 on; of a static sliding window that is full, the last ones.
    """
    if isinstance(mask, dict):
        mask = next((m for m in mask.values() if m is not None), None)
    if mask is None or (isinstance(mask, Tensor) and mask.dim() == 2):
        return mask
    length = ids.shape[1]
    if not isinstance(mask, Tensor) or mask.dim() != 4 or mask.shape[2] != length or mask.shape[3] < length:
        got = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(
            f"`attention_mask`: MokA cannot read padding from {got}. Pass the 2-D mask [batch, sequence], or "
            "routing=Routing(...) together with this one."
        )
    columns = torch.arange(length, device=mask.device)
    own = torch.clamp(columns + start, max=columns + mask.shape[3] - length)  # a tensor's `start` cannot slice
    itself = mask[:, 0].gather(2, own.view(1, -1, 1).expand(mask.shape[0], -1, 1)).squeeze(2)
    return (itself if itself.dtype == torch.bool else itself >= 0).expand(ids.shape[0], -1)


def _cached_length(cache: Any) -> int | Tensor:
    if cache is None:
        return 0
    return cache.get_seq_length() if hasattr(cache, "get_seq_length") else cache[0][0].shape[-2]


def _fills_cache(module: nn.Module, kwargs: dict, cache: Any) -> bool:
    if cache is not None or kwargs.get("use_cache"):
        return True
    default = getattr(getattr(module, "config", None), "use_cache", False)
    wanted = default if kwargs.get("use_cache") is None else False
    return bool(wanted) and not module.training and kwargs.get("labels") is None
