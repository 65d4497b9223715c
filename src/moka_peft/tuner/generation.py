"""`generate` with routing: read once from the whole prompt, of which every forward takes its own columns.

A forward of `generate` may see a chunk of the prompt, what a cache does not hold yet, or drafted tokens. Routed by
its own ids alone it would not know the turn that was opened before its first token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from moka_peft.routing import TEXT, Routing, RoutingSpec
from moka_peft.routing.facts import has_media
from moka_peft.routing.scan import route_if_media

from .forward import Forward, given_cache


@dataclass(frozen=True, eq=False)
class Prompt:
    """What `generate` continues: `ids` [B, S] from cache position 0 on, `mask` [B, S] or None."""

    ids: Tensor
    mask: Tensor | None
    _read: list[tuple[RoutingSpec, Routing]] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, args: tuple, kwargs: dict) -> Prompt | None:
        """Reads the arguments of `generate`; None where they do not hold the ids from position 0 on."""
        ids = next((p for p in (*args[:1], kwargs.get("input_ids"), kwargs.get("inputs")) if _is_ids(p)), None)
        mask = kwargs.get("attention_mask")
        if ids is None or kwargs.get("inputs_embeds") is not None:
            return None
        if mask is None:
            return cls(ids, None) if given_cache(kwargs) is None else None
        if not isinstance(mask, Tensor) or mask.shape != ids.shape:  # a longer mask: only the new tokens were passed
            return None
        return cls(ids, mask)

    @property
    def length(self) -> int:
        """Columns of the prompt."""
        return self.ids.shape[1]

    def routing(self, spec: RoutingSpec) -> Routing:
        """The routing of the whole prompt [B, S]."""
        routing = next((routing for other, routing in self._read if other == spec), None)
        if routing is None:
            routing = route_if_media(self.ids, spec, self.mask, prompt_length=self.length)
            self._read.append((spec, routing))
        return routing

    def columns(self, spec: RoutingSpec, forward: Forward) -> Routing:
        """The part that `forward` covers, rows repeated for beams; generated tokens are text of no turn."""
        start, (batch, length) = forward.cached_length, forward.shape
        repeats, whole = batch // self.ids.shape[0], self.routing(spec)
        if (start, length, repeats) == (0, self.length, 1):
            return whole
        take = slice(start, start + length)
        modality = _filled(whole.modality[:, take], length, TEXT).repeat_interleave(repeats, 0)
        turn = _filled(whole.turn[:, take], length, 0).repeat_interleave(repeats, 0)
        open_turn = whole.open_turn if start < self.length <= start + length else None
        if open_turn is not None:
            open_turn = open_turn.repeat_interleave(repeats, 0)
        found = has_media(whole) and bool((whole.on_host()[0][:, take] > TEXT).any())
        return Routing.unchecked(modality, turn, whole.modalities, open_turn, has_media=found)

    def holds(self, forward: Forward) -> bool:
        """Whether `forward` runs on a stretch of this prompt or on what follows it."""
        if forward.input_ids is None or forward.shape[0] % self.ids.shape[0]:
            return False
        start, repeats = forward.cached_length, forward.shape[0] // self.ids.shape[0]
        ids = self.ids[:, start : start + forward.shape[1]]
        if not ids.shape[1]:
            return True
        given = forward.input_ids[:, : ids.shape[1]]
        expected = ids.repeat_interleave(repeats, 0) if repeats > 1 else ids
        return torch.equal(expected.to(given.device), given)

    def check_whole_turns(self, spec: RoutingSpec, forward: Forward, interaction: str) -> None:
        """Raises ValueError where a turn with media lies partly inside `forward` and partly outside."""
        start, stop = forward.cached_length, forward.cached_length + forward.shape[1]
        for cut in (start, stop):
            if 0 < cut < self.length:
                split = split_turns(self.routing(spec))[:, cut]
                inside = self._inside(self.routing(spec), split, start, stop, interaction)
                if bool(inside.any()):
                    raise ValueError(split_turn_message(int(inside.any(1).int().argmax()), cut))

    @staticmethod
    def _inside(routing: Routing, split: Tensor, start: int, stop: int, interaction: str) -> Tensor:
        enriched = routing.is_instruction if interaction == "text_query" else routing.is_media
        return ((routing.turn == split.unsqueeze(1)) & enriched)[:, start:stop] & (split > 0).unsqueeze(1)


def chunk_size_for(prompt: Prompt, specs: Sequence[RoutingSpec], size: int, cached_length: int) -> int:
    """`prefill_chunk_size`, or the next larger size at which no chunk ends inside a turn with media.

    Media and the instruction they attend to must be in one forward. The largest answer is one chunk for all.
    """
    if not specs:
        return size
    return whole_turn_chunks([prompt.routing(spec) for spec in specs], cached_length, size)


def split_turn_message(row: int, cut: int) -> str:
    """Why media and their instruction must enter a cache together."""
    return (
        f"row {row}: position {cut} of the prompt lies inside a user turn with media, and the cache is filled up to "
        "there by another forward: media and the instruction they attend to must be in one forward. Give the whole "
        "turn, up to where the answer starts, in one forward; allow_open_turn=True leaves media without what lies in "
        "another."
    )


def whole_turn_chunks(routings: Sequence[Routing], first: int, size: int) -> int:
    """The smallest chunk size >= `size` whose boundaries, counted from column `first`, split no turn with media."""
    length = routings[0].shape[1]
    forbidden = torch.stack([split_turns(routing) for routing in routings]).sum((0, 1)).tolist()  # [S]
    for chunk in range(size, length - first):
        if not any(forbidden[first + chunk :: chunk]):
            return chunk
    return max(length - first, size)


def split_turns(routing: Routing) -> Tensor:
    """[B, S] the turn with media that has tokens before column c as well as at or after it, 0 where there is none."""
    turn = routing.turn
    none_after = torch.iinfo(turn.dtype).max
    before = torch.cat([torch.zeros_like(turn[:, :1]), turn.cummax(1).values[:, :-1]], 1)
    after = turn.masked_fill(turn == 0, none_after).flip(1).cummin(1).values.flip(1)
    media_turns = turn.new_zeros(turn.shape[0], int(turn.max()) + 1).scatter_add(
        1, turn, routing.is_media.to(turn.dtype)
    )  # [B, turns]
    has_media = media_turns.gather(1, before) > 0
    return torch.where((before > 0) & (before == after) & has_media, before, 0)


def _filled(values: Tensor, length: int, value: int) -> Tensor:
    filler = values.new_full((values.shape[0], length - values.shape[1]), value)
    return torch.cat([values, filler], 1) if filler.shape[1] else values


def _is_ids(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 2 and not value.is_floating_point()
