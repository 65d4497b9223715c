"""How work is dealt to programs: block sizes, and a plan's rows cut into tiles of one modality each."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from moka_peft.routing.plan import Plan


class Tile(NamedTuple):
    rows: int
    columns: int
    rank: int


# (rows, columns) of a program's tile, by the rank rounded up; of queries and keys for "attend", which computes in
# float32 always. None was timed. Chosen so that a program has 8 to 16 KB of reads under way per pipeline stage (a
# Hopper multiprocessor needs about 30 KB to reach its share of the bandwidth) and, read off the assembler's report
# for sm_80 and sm_90, spills no or few registers. Every side is at least 16, the least that tl.dot takes. An exact
# float32 product keeps its operands in registers instead of feeding the tensor cores, hence its smaller tiles.
SIZES: dict[str, dict[int, tuple[int, int]]] = {
    "project": {16: (32, 128), 32: (32, 128), 64: (64, 64), 128: (64, 64)},
    "project_backward": {16: (32, 128), 32: (32, 128), 64: (32, 128), 128: (32, 64)},
    "expand": {16: (64, 128), 32: (64, 128), 64: (64, 128), 128: (64, 128)},
    "expand_backward": {16: (32, 256), 32: (32, 256), 64: (32, 128), 128: (32, 64)},
}
FLOAT32_SIZES: dict[str, dict[int, tuple[int, int]]] = {
    "project": {16: (32, 64), 32: (32, 64), 64: (32, 32), 128: (32, 32)},
    "project_backward": {
        16: (32, 32),
        32: (16, 32),
        64: (16, 32),
        128: (16, 32),
    },  # with dropout 64 spills 100 bytes, 128 3 kB
    "expand": {16: (64, 64), 32: (32, 64), 64: (32, 64), 128: (16, 32)},
    "expand_backward": {16: (32, 64), 32: (32, 64), 64: (16, 32), 128: (16, 16)},
    "attend": {16: (32, 32), 32: (16, 32), 64: (16, 16), 128: (16, 16)},
}
STAGES = 4
PROGRAMS_PER_PROCESSOR = 3  # resident at once with these tiles; fewer leave the latency of a read uncovered
LARGEST_RANK = 128
LAUNCH = {"num_warps": 4, "enable_fp_fusion": True}  # Triton 3.9 warns where fp fusion is left to its default


def tile_of(kernel: str, rank: int, dtype: torch.dtype) -> Tile:
    """The tile of `kernel` at this rank and dtype. Raises ValueError where the rank is too large."""
    if rank > LARGEST_RANK:
        raise ValueError(
            f"`r`: expected at most {LARGEST_RANK} for impl='triton', got {rank}. Use impl='auto' or 'eager'."
        )
    padded = padded_rank(rank)
    table = FLOAT32_SIZES if dtype == torch.float32 else SIZES
    return Tile(*table[kernel][padded], padded)


def padded_rank(rank: int) -> int:
    """What tl.dot multiplies: a power of two, 16 or more."""
    return max(16, 1 << (rank - 1).bit_length())


@lru_cache
def processors(device: torch.device) -> int:
    """How many multiprocessors `device` has; the interpreter plays two."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


@dataclass(frozen=True, eq=False)
class Tiles:
    """`table` [count, 3] int32: modality, first position in the plan's order, and the position after the last.

    `bounds` [modalities + 1] int32: modality m has the tiles bounds[m] to bounds[m + 1].
    """

    table: Tensor
    bounds: Tensor
    count: int


_CUT: WeakKeyDictionary[Plan, dict[tuple[int, int], Tiles]] = WeakKeyDictionary()


def cut(plan: Plan, rows: int, modalities: int) -> Tiles:
    """Tiles of at most `rows` rows; made and copied to the device once per plan, read by every layer of a forward."""
    known = _CUT.setdefault(plan, {})
    if (rows, modalities) not in known:
        known[rows, modalities] = _cut(plan, rows, modalities)
    return known[rows, modalities]


def _cut(plan: Plan, rows: int, modalities: int) -> Tiles:
    table: list[int] = []
    bounds = [0]
    for modality in range(modalities):
        start, stop = plan.bounds[modality : modality + 2] if modality + 1 < len(plan.bounds) else (0, 0)
        for first in range(start, stop, rows):
            table += modality, first, min(first + rows, stop)
        bounds.append(len(table) // 3)
    both = torch.tensor(table + bounds, dtype=torch.int32).to(plan.order.device)  # one copy to the device
    return Tiles(both[: len(table)].view(-1, 3), both[len(table) :], len(table) // 3)


def cdiv(dividend: int, divisor: int) -> int:
    """The quotient, rounded up."""
    return -(-dividend // divisor)


def segment_rows(rows: int, columns: int, tile: Tile, device: torch.device) -> int:
    """How many of `rows` a program walks over where each has one block of `columns`: a multiple of a tile's rows.

    As many as leave enough programs to fill the device: every further segment costs one more rank-sized partial sum.
    """
    segments = cdiv(PROGRAMS_PER_PROCESSOR * processors(device), cdiv(columns, tile.columns))
    return tile.rows * max(cdiv(cdiv(rows, segments), tile.rows), 1)


def on_device(tensor: Tensor) -> contextlib.AbstractContextManager:
    """Launches go to the current device: makes it the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def rows_in_line(matrix: Tensor) -> Tensor:
    """The matrix, copied only where the elements of a row do not lie side by side."""
    return matrix if matrix.stride(1) == 1 or matrix.shape[1] == 1 else matrix.contiguous()
