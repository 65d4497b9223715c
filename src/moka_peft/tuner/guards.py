"""The checks of a forward that no output would betray: loss on the instruction, open turns, a wrong spec."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from moka_peft.routing import Routing
from moka_peft.routing.plan import media_plan
from moka_peft.routing.spans import count_media, sketch_row

from .channel import KeyCount, RoutingChannel
from .forward import Forward
from .generation import Prompt

logger = logging.getLogger(__name__)
FORWARDS_WITHOUT_KEYS = 8


def check(
    channel: RoutingChannel, current: dict[str, Routing], forward: Forward, prompt: Prompt | None, allow_open_turn: bool
) -> None:
    """Raises ValueError where the output of this forward could be wrong without showing it.

    `prompt`: what the forward is a part of, where that is known.
    """
    for adapter, routing in current.items():
        config = channel.configs[adapter]
        if config.interaction == "none":
            continue
        if forward.fills_cache and not allow_open_turn:
            if prompt is not None:
                prompt.check_whole_turns(config.routing, forward, config.interaction)
            _check_open_turns(routing, starts_midway=forward.cached_length > 0 and prompt is None)
        if forward.labels is not None and config.supervised_instruction == "raise":
            _check_supervised_instruction(routing, forward.labels)
        if forward.is_training:
            count_keys(channel.keys_seen.setdefault(adapter, KeyCount()), routing)


def _check_open_turns(routing: Routing, *, starts_midway: bool) -> None:
    if routing.open_turn is None:
        return
    open_media = routing.is_media & (routing.turn > 0) & (routing.turn == routing.open_turn.unsqueeze(1))
    if starts_midway:  # media whose turn was opened by an earlier forward
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
