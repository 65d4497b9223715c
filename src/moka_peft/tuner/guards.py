"""The checks of a forward that no output would betray: loss on the instruction, open turns, a wrong spec."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from moka_peft.routing import Routing
from moka_peft.routing.plan import media_plan
from moka_peft.routing.spans import count_media, sketch_row

from .channel import KeyCount, RoutingChannel

logger = logging.getLogger(__name__)
FORWARDS_WITHOUT_KEYS = 8


@dataclass(frozen=True, eq=False)
class Forward:
    """What the checks and the routing need to know of one call of the model.

    `shape` (batch, sequence); () where the input tells neither. `cached_length`: positions already in the cache.
    `fills_cache`: whether this forward writes a cache that later forwards read.
    """

    shape: tuple[int, ...]
    input_ids: Tensor | None
    attention_mask: Tensor | None
    labels: Tensor | None
    cached_length: int
    fills_cache: bool
    is_training: bool

    @classmethod
    def of(cls, module: nn.Module, args: tuple, kwargs: dict) -> Forward:
        """Reads the arguments of `module`'s forward."""
        first = args[0] if args and isinstance(args[0], Tensor) else None
        ids = kwargs.get("input_ids")
        if ids is None and first is not None and not first.is_floating_point() and first.dim() == 2:
            ids = first
        embeds = kwargs.get("inputs_embeds", first if first is not None and first.is_floating_point() else None)
        shaped = ids if ids is not None else embeds
        cache = kwargs.get("past_key_values")
        cached_length = _cached_length(cache)
        return cls(
            shape=() if shaped is None or shaped.dim() < 2 else tuple(shaped.shape[:2]),
            input_ids=ids,
            attention_mask=_padding_mask(kwargs.get("attention_mask"), ids, cached_length),
            labels=kwargs.get("labels"),
            cached_length=cached_length,
            fills_cache=_fills_cache(module, kwargs, cache),
            is_training=module.training and torch.is_grad_enabled(),
        )


def _padding_mask(mask: Any, ids: Tensor | None, start: int) -> Tensor | None:
    """The 2-D padding mask; of a prepared mask [B, 1, S, >= start + S] (or a dict of them) who may see itself."""
    if isinstance(mask, dict):
        mask = next((m for m in mask.values() if m is not None), None)
    if mask is None or ids is None or (isinstance(mask, Tensor) and mask.dim() == 2):
        return mask
    length = ids.shape[1]
    if not isinstance(mask, Tensor) or mask.dim() != 4 or mask.shape[2] != length or mask.shape[3] < start + length:
        got = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(
            f"`attention_mask`: MokA cannot read padding from {got}. Pass the 2-D mask [batch, sequence], or "
            "routing=Routing(...) together with this one."
        )
    itself = mask[:, 0, :, start : start + length].diagonal(dim1=-2, dim2=-1)
    return (itself if itself.dtype == torch.bool else itself >= 0).expand(ids.shape[0], -1)


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


def check(channel: RoutingChannel, current: dict[str, Routing], forward: Forward, allow_open_turn: bool) -> None:
    """Raises ValueError where the output of this forward could be wrong without showing it."""
    for adapter, routing in current.items():
        config = channel.configs[adapter]
        if config.interaction == "none":
            continue
        if forward.fills_cache and not allow_open_turn:
            _check_open_turns(routing, forward)
        if forward.labels is not None and config.supervised_instruction == "raise":
            _check_supervised_instruction(routing, forward.labels)
        if forward.is_training:
            count_keys(channel.keys_seen.setdefault(adapter, KeyCount()), routing)


def _check_open_turns(routing: Routing, forward: Forward) -> None:
    if routing.open_turn is None:
        return
    open_media = routing.is_media & (routing.turn > 0) & (routing.turn == routing.open_turn.unsqueeze(1))
    if forward.cached_length:  # media whose turn was opened by an earlier forward
        open_media = open_media | (routing.is_media & (routing.turn == 0))
    if bool(open_media.any()):
        row = int(open_media.any(1).int().argmax())
        raise ValueError(
            f"row {row}: {int(open_media[row].sum())} media tokens enter the cache, but their user turn is not "
            "complete in this forward, so the instruction they attend to is not known yet. Give the whole turn, "
            "up to where the answer starts (add_generation_prompt=True), in one forward; allow_open_turn=True leaves "
            "these media without an instruction."
        )


def supervised_instruction(labels: Tensor, routing: Routing) -> Tensor:
    """[B, S] bool: instruction tokens of turns with media that carry loss."""
    plan = media_plan(routing)
    read = torch.zeros_like(routing.is_media).scatter(1, plan.key, plan.allowed.any(1))
    return read & (labels != -100)


def without_supervised_instruction(labels: Tensor, routing: Routing) -> Tensor:
    """`labels` with -100 at the instruction of turns with media."""
    if labels.shape != routing.shape:
        return labels
    return labels.masked_fill(supervised_instruction(labels, routing.to(labels.device)), -100)


def _check_supervised_instruction(routing: Routing, labels: Tensor) -> None:
    if labels.shape != routing.shape:
        return
    count = int(supervised_instruction(labels, routing.to(labels.device)).sum())
    if count:
        raise ValueError(
            f"{count} instruction tokens carry loss (`labels` is not -100 there). Media before them attend to them and "
            "would hand them to the positions that predict them: the loss would fall without learning. Use "
            "assistant-only or completion-only loss, or MokaConfig(supervised_instruction='ignore')."
        )


def count_keys(count: KeyCount, routing: Routing) -> None:
    """Counts media with keys. Raises ValueError when none had one in the first forwards with media."""
    with_key, media = count_media(routing)
    if not media:
        return
    first_keys = with_key > 0 and count.with_key == 0
    count.forwards, count.media, count.with_key = count.forwards + 1, count.media + media, count.with_key + with_key
    if first_keys:
        logger.info("MokA routing: %d of %d media tokens have an instruction to attend to", count.with_key, count.media)
    if not count.with_key and count.forwards >= FORWARDS_WITHOUT_KEYS:
        row = int(routing.is_media.any(1).int().argmax())
        raise ValueError(
            f"no media token had an instruction to attend to in the first {count.forwards} training forwards "
            f"with media: the routing spec does not fit this model's prompts. One row: {sketch_row(routing, row)}. "
            "Check it with `moka route`, or pass routing=RoutingSpec(...); interaction='none' trains without "
            "attention."
        )
