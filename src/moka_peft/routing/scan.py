"""route(): from token ids to a Routing, in tensor operations alone (no loop over samples, no device sync)."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor

from .packed import apart, ends_elsewhere, first_columns, samples_of
from .routing import PADDING, TEXT, Routing
from .spec import RoutingSpec


def route(
    input_ids: Tensor,
    spec: RoutingSpec,
    attention_mask: Tensor | None = None,
    *,
    prompt_length: int | None = None,
    position_ids: Tensor | None = None,
) -> Routing:
    """Reads modality and turn of every token of `input_ids` [B, S] int64.

    `attention_mask` [B, >= S]: 0 is padding; with more columns than tokens (a cached forward) the last S count;
    None: no padding. `prompt_length`: for a spec without a close, the column where the answer begins.
    `position_ids` [B, S]: where they do not go on by one, another sample of a packed row begins; its turns are read
    as if it stood alone and numbered on. Raises ValueError where the shapes do not fit.
    """
    real = _real_tokens(input_ids, attention_mask)
    return _with_turns(input_ids, spec, real, _modalities(input_ids, spec, real), prompt_length, position_ids)


def route_if_media(
    input_ids: Tensor,
    spec: RoutingSpec,
    attention_mask: Tensor | None = None,
    *,
    prompt_length: int | None = None,
    position_ids: Tensor | None = None,
) -> Routing:
    """As `route`, but turns are read only where some token is media: without one, no token meets another.

    One device sync, which tells.
    """
    real = _real_tokens(input_ids, attention_mask)
    modality = _modalities(input_ids, spec, real)
    if not bool((modality > TEXT).any()):
        return Routing.unchecked(modality, torch.zeros_like(modality), spec.modalities, None, has_media=False)
    routing = _with_turns(input_ids, spec, real, modality, prompt_length, position_ids)
    routing._derived["has_media"] = True
    return routing


def route_alone(input_ids: Tensor, spec: RoutingSpec) -> Routing:
    """The modality of tokens [B, 1] that are alone in their forward, and so meet no other: of no turn, no padding."""
    modality = _modalities(input_ids, spec, None)
    return Routing.unchecked(modality, torch.zeros_like(modality), spec.modalities, None, has_padding=False)


def names_media(input_ids: Tensor, spec: RoutingSpec) -> bool:
    """Whether any of these few ids is a placeholder: one copy to the host, and no other operator."""
    return not spec.media_ids.isdisjoint(chain.from_iterable(input_ids.tolist()))


def _modalities(input_ids: Tensor, spec: RoutingSpec, real: Tensor | None) -> Tensor:
    """[B, S] the modality of every token, `real` or else padding; None: all are real."""
    modality = torch.zeros_like(input_ids) if real is None else torch.where(real, TEXT, PADDING)
    for index, ids in enumerate(spec.placeholders.values(), start=1):
        found = _is_any(input_ids, ids)
        modality = torch.where(found if real is None else found & real, index, modality)
    return modality


def _with_turns(
    input_ids: Tensor,
    spec: RoutingSpec,
    real: Tensor,
    modality: Tensor,
    prompt_length: int | None,
    position_ids: Tensor | None,
) -> Routing:
    ids = torch.where(real, input_ids, -1)
    sample = samples_of(ids, position_ids)
    turn, inside, delimiter = _scan_turns(ids, spec, prompt_length, sample)
    is_media = modality > TEXT
    is_instruction = (modality == TEXT) & ~delimiter & ~_skipped(ids, spec, apart(turn, sample), sample)
    if not spec.user_close:
        is_instruction &= ~_media_follows(apart(turn, sample), is_media)
    open_turn = torch.where(inside[:, -1], turn[:, -1], 0)
    if not spec.user_close and prompt_length is not None and prompt_length <= input_ids.shape[1]:
        open_turn = torch.zeros_like(open_turn)  # the prompt's end closes the turn
    turn = torch.where(inside & (is_media | is_instruction), turn, 0)
    return Routing.unchecked(modality, turn, spec.modalities, open_turn)


def _real_tokens(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    if input_ids.dim() != 2:
        raise ValueError(f"`input_ids`: expected [batch, sequence], got {list(input_ids.shape)}.")
    if attention_mask is None:
        return torch.ones_like(input_ids, dtype=torch.bool)
    batch, length = input_ids.shape
    if attention_mask.dim() != 2 or attention_mask.shape[0] != batch or attention_mask.shape[1] < length:
        raise ValueError(
            f"`attention_mask`: expected [{batch}, {length}] or more columns, got {list(attention_mask.shape)}."
        )
    return attention_mask[:, -length:] != 0


def _is_any(ids: Tensor, tokens: tuple[int, ...]) -> Tensor:
    found = ids == tokens[0]
    for token in tokens[1:]:
        found = found | (ids == token)
    return found


def _shift(mask: Tensor, by: int) -> Tensor:
    """mask moved `by` columns to the right (negative: left), False coming in."""
    if by == 0:
        return mask
    if abs(by) >= mask.shape[1]:
        return torch.zeros_like(mask)
    filler = torch.zeros_like(mask[:, : abs(by)])
    return torch.cat([filler, mask[:, :-by]], 1) if by > 0 else torch.cat([mask[:, -by:], filler], 1)


def _starts(ids: Tensor, sequence: tuple[int, ...], sample: Tensor | None) -> Tensor:
    """[B, S] bool: True where `sequence` begins; it does not reach into the next sample of a packed row."""
    found = ids == sequence[0]
    for offset, token in enumerate(sequence[1:], start=1):
        found = found & _shift(ids == token, -offset)
    if sample is not None and len(sequence) > 1:
        found = found & ~ends_elsewhere(sample, len(sequence))
    return found


def _matches(
    ids: Tensor, sequences: tuple[tuple[int, ...], ...], sample: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Where any of `sequences` begins, where it ends, and every token it covers; each [B, S] bool."""
    begins = ends = covered = torch.zeros_like(ids, dtype=torch.bool)
    for sequence in sequences:
        start = _starts(ids, sequence, sample)
        begins = begins | start
        ends = ends | _shift(start, len(sequence) - 1)
        for offset in range(len(sequence)):
            covered = covered | _shift(start, offset)
    return begins, ends, covered


def _last(mask: Tensor, *, before: bool) -> Tensor:
    """[B, S] column of the last True at or before each token (`before`: strictly before), -1 where there is none."""
    columns = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, columns, -1).cummax(1).values
    if not before:
        return last
    return torch.cat([torch.full_like(last[:, :1], -1), last[:, :-1]], 1)


def _scan_turns(
    ids: Tensor, spec: RoutingSpec, prompt_length: int | None, sample: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Number of the last opened user turn, whether that turn is still open, and the delimiters' tokens."""
    _, open_ends, open_covers = _matches(ids, spec.user_open, sample)
    closes, _, close_covers = _matches(ids, spec.user_close or spec.answer_start, sample)
    if not spec.user_close and prompt_length is not None and prompt_length < ids.shape[1]:
        closes = closes | (torch.arange(ids.shape[1], device=ids.device) == prompt_length)
    last_open = _last(open_ends, before=True)
    first = first_columns(ids, sample)  # without an open, this is where the first turn is opened
    last_open = torch.where(last_open < first, -1 if spec.user_open else first, last_open)
    last_close = _last(closes, before=False)
    inside = last_open > last_close
    opens = open_ends & ~inside  # an open inside an open turn is a variant of the same delimiter, or typed text
    turn = opens.cumsum(1) - opens.to(torch.int64)
    if not spec.user_open:
        turn = turn + 1 if sample is None else turn + 1 + sample
    return turn, inside, open_covers | close_covers


def _next(mask: Tensor) -> Tensor:
    """[B, S] column of the next True at or after each token, S where there is none."""
    length = mask.shape[1]
    columns = torch.arange(length, device=mask.device)
    return torch.where(mask, columns, length).flip(1).cummin(1).values.flip(1)


def _skipped(ids: Tensor, spec: RoutingSpec, turn: Tensor, sample: Tensor | None) -> Tensor:
    skipped = torch.zeros_like(ids, dtype=torch.bool)
    for item in spec.skip:
        if isinstance(item, int):
            skipped = skipped | (ids == item)
        elif isinstance(item[0], int):
            skipped = skipped | _matches(ids, (item,), sample)[2]  # pyright: ignore[reportArgumentType]
        else:
            begins, _, _ = _matches(ids, item[:1], sample)  # pyright: ignore[reportArgumentType]
            _, ends, _ = _matches(ids, item[1:2], sample)  # pyright: ignore[reportArgumentType]
            longest = item[2] if len(item) == 3 else ids.shape[1]
            skipped = skipped | _enclosed(begins, ends, turn, longest)  # pyright: ignore[reportArgumentType]
    return skipped


def _enclosed(begins: Tensor, ends: Tensor, turn: Tensor, longest: int) -> Tensor:
    """[B, S] bool: from a begin to the next end, both in the same turn and at most `longest` tokens; a begin that
    nothing ends encloses nothing."""
    begin, end = _last(begins, before=False), _next(ends)
    enclosed = (begin > _last(ends, before=True)) & (end < turn.shape[1]) & (end - begin < longest)
    begin_turn = turn.gather(1, begin.clamp(min=0))
    end_turn = turn.gather(1, end.clamp(max=turn.shape[1] - 1))
    return enclosed & (begin_turn == turn) & (end_turn == turn)


def _media_follows(turn: Tensor, is_media: Tensor) -> Tensor:
    """[B, S] bool: a later token of the same turn is media."""
    following, length = _next(is_media), turn.shape[1]
    return (following < length) & (turn.gather(1, following.clamp(max=length - 1)) == turn)
