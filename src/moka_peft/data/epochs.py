"""Which rank reads which sample at which step: a pure function of seed, epoch and number of ranks.

    samples --(packed)--> units --shuffle--> --deal to ranks--> --batches of `batch_size` units--> same steps on each

Nothing is communicated and nothing is remembered: a resumed run skips ahead without reading what it skips, and any
rank of any run can be computed anywhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset, Sampler

from moka_peft.data.dealing import deal, plan_rows, shuffled_pieces
from moka_peft.data.samples import Sample

GROUPED_BATCHES = 50  # among this many batches, samples of similar length come together
SHUFFLED_BLOCKS = 4  # samples are shuffled among this many blocks that are read together
BLOCKS_PER_RANK = 32  # at least: with 8, tokens per rank differed by 12 % over shards of very different lengths
PACKED_SAMPLES = 1024  # rows are filled from this many neighbours


@dataclass(frozen=True)
class EpochPlan:
    """The batches of every rank and epoch over samples 0 to sum(shard_sizes) - 1.

    Each sample comes exactly once per epoch. Every rank has the same number of batches, the same in all epochs; one
    that has run out of samples gets batches of one sample without loss, written `~i`.
    `block`: samples that are read together. With 1 and without lengths, a step holds the same samples on any number
    of ranks, as long as ranks times `batch_size` is the same.
    `lengths` [samples]: tokens of each, where they are known: then ranks get near-equal tokens, and a batch holds
    samples of similar length, at the same step on all ranks. `capacity`: tokens of a packed row; with `lengths`,
    `batch_size` then counts rows instead of samples.
    `stages`: numbers of samples that come one after another in each epoch, as epochs of their own would, whole shards
    each; none: all are mixed.
    Raises ValueError without samples, or where lengths, stages and samples differ in number.
    """

    shard_sizes: tuple[int, ...]
    batch_size: int
    ranks: int = 1
    seed: int = 0
    block: int = 1
    lengths: np.ndarray | None = None
    capacity: int | None = None
    stages: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        total = sum(self.shard_sizes)
        if total < 1:
            raise ValueError("the training data are empty: expected at least 1 sample, got 0. Check `data.train`.")
        if self.lengths is not None and len(self.lengths) != total:
            raise ValueError(
                f"`lengths` fit other data: expected {total}, one per sample, got {len(self.lengths)}. Count again."
            )
        ends = set(accumulate(self.shard_sizes))
        if self.stages and (sum(self.stages) != total or not set(accumulate(self.stages)) <= ends):
            raise ValueError(f"`stages` fit other data: expected shards of {self.shard_sizes}, got {self.stages}.")

    @property
    def counts_rows(self) -> bool:
        """Whether a batch is a number of packed rows, not of samples."""
        return self.capacity is not None and self.lengths is not None

    @property
    def steps(self) -> int:
        """Batches of each rank in an epoch."""
        if self.stages:
            return sum(plan.steps for _, plan in self._stage_plans)
        per_rank = -(-self._units // self.ranks)
        return -(-per_rank // self.batch_size)

    def batches(self, epoch: int, rank: int) -> list[list[int]]:
        """What `rank` reads in `epoch`: `steps` batches of sample indices, `~i` for sample i without loss."""
        if self.stages:
            stages = [(first, plan.batches(epoch, rank)) for first, plan in self._stage_plans]
            return [[_moved(i, first) for i in batch] for first, batches in stages for batch in batches]
        rng = np.random.default_rng((self.seed, epoch, 0))
        block = self._block_of_units
        order = shuffled_pieces(self._unit_sizes, block, rng)
        own = order[deal(order, self._tokens, self.ranks, block) == rank]
        if block > 1:
            own = _shuffled_within(own, SHUFFLED_BLOCKS * block, np.random.default_rng((self.seed, epoch, 1, rank)))
        batches = self._grouped(own, epoch) if self._groups_lengths else _cut(own, self.batch_size)
        filled = [self._samples_of(units) for units in batches]
        return filled + [[self._without_loss(own)]] * (self.steps - len(filled))

    @cached_property
    def _stage_plans(self) -> list[tuple[int, "EpochPlan"]]:
        """The first sample of each stage that has any, and the plan of its own samples."""
        ends, plans = list(accumulate(self.shard_sizes)), []
        for first, last in zip([0, *accumulate(self.stages)], accumulate(self.stages), strict=False):
            sizes = tuple(size for size, end in zip(self.shard_sizes, ends, strict=True) if first < end <= last)
            lengths = None if self.lengths is None else self.lengths[first:last]
            if last > first:
                plans.append((first, replace(self, shard_sizes=sizes, lengths=lengths, stages=())))
        return plans

    @cached_property
    def _rows(self) -> tuple[list[np.ndarray], list[int]] | None:
        """Packed rows and how many of them are neighbours; the same in every epoch, so that its length is."""
        if self.capacity is None or self.lengths is None:
            return None
        order = shuffled_pieces(list(self.shard_sizes), self._block, np.random.default_rng((self.seed, 2)))
        return plan_rows(order, self.lengths, self.capacity, max(PACKED_SAMPLES, self._block))

    @cached_property
    def _block(self) -> int:
        """Samples read together: fewer where a rank would get too few blocks to even out their tokens."""
        return max(1, min(self.block, sum(self.shard_sizes) // (BLOCKS_PER_RANK * self.ranks)))

    @cached_property
    def _block_of_units(self) -> int:
        return max(1, self._block * self._units // sum(self.shard_sizes)) if self._block > 1 else 1

    @property
    def _unit_sizes(self) -> list[int]:
        return list(self.shard_sizes) if self._rows is None else self._rows[1]

    @property
    def _units(self) -> int:
        return sum(self._unit_sizes)

    @cached_property
    def _tokens(self) -> np.ndarray | None:
        """Tokens of every unit, where they are known."""
        if self.lengths is None or self._rows is None:
            return self.lengths
        return np.array([self.lengths[row].sum() for row in self._rows[0]])

    @property
    def _groups_lengths(self) -> bool:
        return self.lengths is not None and self._rows is None and self.batch_size > 1

    def _grouped(self, own: np.ndarray, epoch: int) -> list[np.ndarray]:
        """Batches of similar length, in an order that all ranks share: a step takes all of them as long."""
        assert self.lengths is not None
        window = GROUPED_BATCHES * self.batch_size
        parts = [own[start : start + window] for start in range(0, len(own), window)]
        own = np.concatenate([part[np.argsort(-self.lengths[part], kind="stable")] for part in parts] or [own])
        batches = _cut(own, self.batch_size)
        full = self._units // self.ranks // self.batch_size  # what every rank has
        order = np.random.default_rng((self.seed, epoch, 3)).permutation(full)
        return [batches[i] for i in order] + batches[full:]

    def _samples_of(self, units: np.ndarray) -> list[int]:
        if self._rows is None:
            return units.tolist()
        return np.concatenate([self._rows[0][unit] for unit in units]).tolist()

    def _without_loss(self, own: np.ndarray) -> int:
        """A sample of this rank, the shortest where that is known: it costs least."""
        samples = self._samples_of(own) if len(own) else [0]
        return ~(samples[0] if self.lengths is None else samples[int(self.lengths[samples].argmin())])


class EpochBatches(Sampler[list[int]]):
    """The batch sampler of one rank; `set_epoch` chooses the epoch.

    rank: by default that of torch.distributed, 0 where that is not initialised.
    """

    def __init__(self, plan: EpochPlan, rank: int | None = None):
        self.plan = plan
        self.rank = rank if rank is not None else dist.get_rank() if dist.is_initialized() else 0
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration goes through."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.plan.steps

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.plan.batches(self.epoch, self.rank))


class EpochLoader(DataLoader):
    """A DataLoader over `EpochBatches` that the Trainer can tell the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration goes through."""
        batches: Any = self.batch_sampler
        batches.set_epoch(epoch)


class WithoutLoss(Dataset):
    """Samples by index, where `~i` is sample i without loss on any of its answers."""

    def __init__(self, samples: Sequence[Any]):
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index] if index >= 0 else without_loss(self.samples[~index])


def without_loss(sample: Any) -> Any:
    """The sample with `loss: False` on every message; what is no Sample (a bad row) passes through."""
    if not isinstance(sample, Sample):
        return sample
    return replace(sample, messages=[{**message, "loss": False} for message in sample.messages])


def _moved(index: int, first: int) -> int:
    """The index of a stage's sample among all samples; `~i` stays one without loss."""
    return index + first if index >= 0 else index - first


def _shuffled_within(values: np.ndarray, window: int, rng: np.random.Generator) -> np.ndarray:
    parts = [rng.permutation(values[start : start + window]) for start in range(0, len(values), window)]
    return np.concatenate(parts) if parts else values


def _cut(values: np.ndarray, size: int) -> list[np.ndarray]:
    return [values[start : start + size] for start in range(0, len(values), size)]
