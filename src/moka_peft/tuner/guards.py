"""The checks of a forward that no output would betray: loss on the instruction, open turns, a wrong spec."""

from __future__ import annotations

import logging

from torch import Tensor

from moka_peft.routing import TEXT, Routing
from moka_peft.routing.facts import has_media
from moka_peft.routing.spans import count_media, sketch_row

from .channel import KeyCount, RoutingChannel
from .forward import Forward
from .generation import Prompt
from .supervision import check_supervised_instruction

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
        if forward.is_split:
            raise ValueError(
                "`shift_labels`: this forward holds a part of each row (sequence or context parallelism), but media "
                "attend to instruction that another process may hold. Give every process whole rows, or use "
                "MokaConfig(interaction='none')."
            )
        checks_turns = forward.fills_cache and not allow_open_turn
        if checks_turns and prompt is not None:
            prompt.check_whole_turns(config.routing, forward, config.interaction)
        if not has_media(routing):
            continue
        if checks_turns and routing.open_turn is not None:
            _check_open_turns(
                routing, routing.open_turn.cpu(), starts_midway=prompt is None and forward.cached_length > 0
            )
        if forward.labels is not None and config.supervised_instruction == "raise":
            check_supervised_instruction(routing, forward.labels)
        if forward.is_training:
            count_keys(channel.keys_seen.setdefault(adapter, KeyCount()), routing)


def _check_open_turns(routing: Routing, open_turn: Tensor, *, starts_midway: bool) -> None:
    if not starts_midway and not open_turn.any():
        return
    modality, turn, *_ = routing.on_host()
    is_open = (turn > 0) & (turn == open_turn.unsqueeze(1))
    if starts_midway:  # of an earlier forward
        is_open = is_open | (turn == 0)
    open_media = (modality > TEXT) & is_open
    if bool(open_media.any()):
        row = int(open_media.any(1).int().argmax())
        raise ValueError(
            f"row {row}: {int(open_media[row].sum())} media tokens enter the cache, but their user turn is not "
            "complete in this forward, so the instruction they attend to is not known yet. Give the whole turn, "
            "up to where the answer starts (add_generation_prompt=True), in one forward; allow_open_turn=True leaves "
            "these media without an instruction."
        )


def count_keys(count: KeyCount, routing: Routing) -> None:
    """Counts media with keys in a forward with media. Raises ValueError when none had one in the first of those."""
    with_key, media = count_media(routing)
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
