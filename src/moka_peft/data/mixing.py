"""Several sources of samples as one, in which their samples follow each other."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from moka_peft.data.indexed import IndexedSamples
from moka_peft.data.samples import Sample


class MixedSamples(IndexedSamples):
    """The samples of `parts`, one part after another.

    `shard_sizes`: how many samples lie together, in order; `block`: the most neighbours that a part wants read one
    soon after the other.
    """

    def __init__(self, parts: Sequence[Sequence[Sample]]):
        self.parts = list(parts)
        self.shard_sizes = [size for part in self.parts for size in shard_sizes_of(part)]
        self.block = max(map(block_of, self.parts), default=1)
        self._ends = list(accumulate(map(len, self.parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def sample(self, index: int) -> Sample:
        part = bisect_right(self._ends, index)
        return self.parts[part][index - self._ends[part] + len(self.parts[part])]


def shard_sizes_of(samples: Sequence[Any]) -> list[int]:
    """How many of the samples lie together, in order."""
    return list(getattr(samples, "shard_sizes", [len(samples)]))


def block_of(samples: Sequence[Any]) -> int:
    """How many neighbours are best read one soon after the other."""
    return getattr(samples, "block", 1)


def part_sizes_of(samples: Sequence[Any]) -> tuple[int, ...]:
    """How many samples each source has."""
    return tuple(map(len, samples.parts)) if isinstance(samples, MixedSamples) else (len(samples),)
