"""Blocks: who attends to whom in a forward, derived once from its Routing on the host.

Tokens are counted flat, T = batch x sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .facts import by_turn, derived
from .routing import Routing

QUERIES_PER_CHUNK = {"cpu": 256, "cuda": 128}  # at 160 to 700 queries a turn 256 take 0.7 to 0.9 times as long as 128


@dataclass(frozen=True, eq=False)
class Blocks:
    """Who attends to whom: C chunks of queries, each of which shares its keys (one turn of one sample).

    `query` [C, Q] int64 rows; a short chunk repeats its last one. `weight` [C, Q]: the lambda of what a query receives,
    0 where it is such a repeated one. `key` [C, K] int64 rows, repeated likewise, where `bias` [C, K] is -inf, else 0;
    None: no key is repeated. `hole` [C]: the logarithm of how many zero keys take part (-inf: none); None: in no
    chunk. Of the queries that are not repeated: `rows` [N], each once, `slots` [N] where in `query` they are (None:
    everywhere), and `lam` [N, 1]. Values are of the dtype to compute in. `is_whole`: the chunks are the samples, all
    their rows in order, so that no query has to be gathered.
    """

    query: Tensor
    weight: Tensor
    key: Tensor
    bias: Tensor | None
    hole: Tensor | None
    rows: Tensor
    slots: Tensor | None
    lam: Tensor
    is_whole: bool = False


def blocks_of(
    routing: Routing,
    cross_scale: tuple[float, ...],
    dtype: torch.dtype,
    *,
    text_query: bool = False,
    contiguous: bool = False,
) -> list[Blocks]:
    """Media attend to the instruction of their turn and sample; with `text_query`, instruction to each modality.

    `cross_scale`: lambda per media modality; `dtype` to compute in. A query without keys is in no chunk. Chunks are put
    together by their number of keys, up to powers of two.
    `contiguous`: positions between an instruction's first and last token that are not part of it are zero keys.
    """
    key = ("blocks", cross_scale, dtype, text_query, contiguous)
    return derived(
        routing, key, lambda: _blocks(routing, torch.tensor([0.0, *cross_scale], dtype=dtype), text_query, contiguous)
    )


def _blocks(routing: Routing, lam: Tensor, text_query: bool, contiguous: bool) -> list[Blocks]:
    modality, turn, group = by_turn(routing)
    text, media = (modality == 0) & (turn > 0), (modality > 0) & (turn > 0)
    if text_query:
        sides = [(text, media & (modality == m), lam[m].expand(len(modality))) for m in range(1, len(lam))]
    else:
        sides = [(media, text, lam[modality.clamp(min=0)])]
    device = routing.modality.device
    longest = QUERIES_PER_CHUNK.get(device.type, 128)
    blocks = []
    for query, key, own in sides:
        whole = _samples(query, key, group, own, routing.shape, contiguous) if device.type == "cpu" else None
        blocks += [whole] if whole is not None else _pairs(query, key, group, own, contiguous, longest)
    return [_on(device, block) for block in blocks]


def _on(device: torch.device, block: Blocks) -> Blocks:
    values = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in vars(block).items()}
    return Blocks(**values)  # pyright: ignore[reportArgumentType]


def _samples(
    query: Tensor, key: Tensor, group: Tensor, lam: Tensor, shape: torch.Size, contiguous: bool
) -> Blocks | None:
    """One chunk per sample, all its rows, where most of them are queries of one turn; None where that is not so.

    Gathering the queries and putting back what they receive costs a CPU more than attending from some rows in vain.
    """
    keys, counts, starts = _by_group(key, group)
    query = (query & (counts[group] > 0)).view(shape)
    own = torch.where(query, group.view(shape), -1)
    owner = own.amax(1)  # [B]
    if int(query.sum()) * 2 < query.numel() or bool((query & (own != owner.unsqueeze(1))).any()):
        return None
    count = torch.where(owner >= 0, counts[owner], 1)  # a sample without queries gets its first row as key
    if int(count.max()) * len(count) > 2 * int(count.sum()):
        return None
    rows = torch.arange(query.numel(), device="cpu")
    key_rows, key_real = _table(keys, torch.where(owner >= 0, starts[owner], 0), count)
    key_rows = torch.where(owner.unsqueeze(1) >= 0, key_rows, rows.view(shape)[:, :1])
    weight = torch.where(query, lam.view(shape), 0)
    bias = lam.new_zeros(key_rows.shape).masked_fill_(~key_real, -torch.inf)
    return Blocks(
        query=rows.view(shape),
        weight=weight,
        key=key_rows,
        bias=None if bool(key_real.all()) else bias,
        hole=_holes(key_rows, count, lam.dtype) if contiguous else None,
        rows=rows,
        slots=None,
        lam=weight.view(-1, 1),
        is_whole=True,
    )


def _pairs(query: Tensor, key: Tensor, group: Tensor, lam: Tensor, contiguous: bool, longest: int) -> list[Blocks]:
    """Blocks of up to `longest` rows of `query` [T] that attend to those of `key` [T] in their group; `lam` [T]."""
    keys, key_counts, key_starts = _by_group(key, group)
    queries, query_counts, query_starts = _by_group(query & (key_counts[group] > 0), group)
    if not len(queries):
        return []
    chunks_of = (query_counts + longest - 1) // longest
    size = (query_counts + chunks_of - 1) // chunks_of.clamp(min=1)  # two chunks of 84, not 128 and 40
    owner = torch.arange(len(chunks_of), device="cpu").repeat_interleave(chunks_of)  # [C] the group of every chunk
    first = (torch.arange(len(owner), device="cpu") - (chunks_of.cumsum(0) - chunks_of)[owner]) * size[owner]
    start, length = query_starts[owner] + first, torch.minimum(query_counts[owner] - first, size[owner])
    found = []
    bucket = _powers_of_two(key_counts[owner])
    for members in (bucket == keys_up_to for keys_up_to in bucket.unique()):
        count = key_counts[owner[members]]
        found.append(
            _block(
                *_table(queries, start[members], length[members]),
                *_table(keys, key_starts[owner[members]], count),
                lam,
                count if contiguous else None,
            )
        )
    return found


def _block(query: Tensor, real: Tensor, key: Tensor, key_real: Tensor, lam: Tensor, count: Tensor | None) -> Blocks:
    bias = lam.new_zeros(key.shape).masked_fill_(~key_real, -torch.inf)
    slots = real.flatten().nonzero().squeeze(1)
    rows = query.flatten()[slots]
    return Blocks(
        query=query,
        weight=lam[query] * real,
        key=key,
        bias=None if bool(key_real.all()) else bias,
        hole=None if count is None else _holes(key, count, lam.dtype),
        rows=rows,
        slots=None if bool(real.all()) else slots,
        lam=lam[rows].unsqueeze(1),
    )


def _by_group(mask: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The rows where `mask` holds, group after group, and per group how many they are and where they start."""
    rows = mask.nonzero().squeeze(1)
    counts = torch.bincount(group[rows], minlength=int(group.max()) + 1)
    rows = rows[group[rows].argsort(stable=True)]
    return rows, counts, counts.cumsum(0) - counts


def _table(rows: Tensor, start: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """rows[start:start + length] for every start [C], side by side, the last one repeated, and which are real.

    Both [C, longest]. Repeating a row of its own keeps what is not a number within its sample.
    """
    column = torch.arange(int(length.max()), device="cpu").unsqueeze(0)
    real = column < length.unsqueeze(1)
    return rows[start.unsqueeze(1) + torch.minimum(column, length.unsqueeze(1) - 1)], real


def _powers_of_two(counts: Tensor) -> Tensor:
    return 2 ** counts.double().log2().ceil().long()


def _holes(key: Tensor, count: Tensor, dtype: torch.dtype) -> Tensor | None:
    """log of the positions between a chunk's first and last key [C, K] that are no keys; None where there are none."""
    last = key.gather(1, count.unsqueeze(1) - 1).squeeze(1)
    missing = last - key[:, 0] + 1 - count
    return missing.to(dtype).log() if bool(missing.any()) else None
