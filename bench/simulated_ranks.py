"""Simulates which sample every rank of a large run reads, with torch's fake process group: no rank is started.

    python bench/simulated_ranks.py                  # 1,024 ranks; a few minutes on one core
    python bench/simulated_ranks.py --ranks 64

The data are shards of 50 to 2,000 samples; a shard's samples are short, middling or long (log-normal lengths around
200, 800 or 3,000 tokens, from 20 to 8,192). Each rank draws one epoch through the loader that training uses, and
once more from the middle, as a resumed run does. Writes bench/results/simulated_ranks.json.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from accelerate import skip_first_batches
from torch.testing._internal.distributed.fake_pg import FakeStore

from moka_peft.cli.env import environment
from moka_peft.data.epochs import EpochBatches, EpochLoader, EpochPlan

SAMPLES_PER_RANK, LEFT_OVER = 200, 37
LONGEST = 8192  # tokens
SEED, EPOCH = 0, 1
RESULT = Path(__file__).parent / "results" / "simulated_ranks.json"


def make_shards(ranks: int) -> tuple[tuple[int, ...], np.ndarray]:
    """Sizes of the shards, and the tokens of every sample."""
    rng, sizes, lengths = np.random.default_rng(SEED), [], []
    left = ranks * SAMPLES_PER_RANK + LEFT_OVER
    while left:
        size = min(left, int(rng.integers(50, 2001)))
        around = np.log(rng.choice([200, 800, 3000]))
        lengths.append(rng.lognormal(around, 0.6, size).clip(20, LONGEST).astype(np.int64))
        sizes.append(size)
        left -= size
    return tuple(sizes), np.concatenate(lengths)


def draw(plan: EpochPlan, rank: int, samples: range) -> list[list[int]]:
    """One rank's epoch through the loader of training. Raises RuntimeError where a resumed one goes another way."""
    dist.init_process_group("fake", rank=rank, world_size=plan.ranks, store=FakeStore())
    try:
        loader = EpochLoader(IndexOf(samples), batch_sampler=EpochBatches(plan), collate_fn=list)
        loader.set_epoch(EPOCH)
        batches = list(loader)
        if list(skip_first_batches(loader, len(loader) // 2)) != batches[len(loader) // 2 :]:
            raise RuntimeError(f"rank {rank}: the second half of the epoch differs when the first is skipped")
    finally:
        dist.destroy_process_group()
    return batches


class IndexOf:
    """A dataset whose samples are their own indices, `~i` included."""

    def __init__(self, samples: range):
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> int:
        return index


def simulate(plan: EpochPlan, lengths: np.ndarray) -> dict[str, Any]:
    """All ranks of one plan: who reads what, and how even it is (a step takes as long as its longest batch)."""
    start = time.perf_counter()
    times_read = np.zeros(len(lengths), dtype=int)
    edges = np.cumsum(plan.shard_sizes)
    tokens, per_step, without_loss, steps, shards = [], [], 0, set(), []
    for rank in range(plan.ranks):
        batches = draw(plan, rank, range(len(lengths)))
        read = np.array([i for batch in batches for i in batch if i >= 0])
        np.add.at(times_read, read, 1)
        without_loss += sum(batch[0] < 0 for batch in batches)
        steps.add(len(batches))
        tokens.append(lengths[read].sum())
        per_step.append([lengths[[max(i, ~i) for i in batch]].sum() for batch in batches])
        shards.append(len(np.unique(np.searchsorted(edges, read, side="right"))))
    if set(times_read) != {1} or len(steps) != 1:
        raise RuntimeError(f"samples were read {sorted(set(times_read))} times, ranks have {sorted(steps)} steps")
    share, by_step = np.array(tokens) / np.mean(tokens), np.array(per_step)
    return {
        "steps_per_rank": steps.pop(),
        "every_sample_exactly_once": True,
        "batches_without_loss": without_loss,
        "tokens_of_a_rank_over_the_mean": [round(float(share.min()), 4), round(float(share.max()), 4)],
        "tokens_waited_for_over_tokens_read": round(float(by_step.max(0).sum() / by_step.mean(0).sum()), 3),
        "shards_a_rank_reads": [int(min(shards)), int(max(shards))],
        "seconds_per_rank": round((time.perf_counter() - start) / plan.ranks, 4),
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Simulates, prints and records."""
    parser = argparse.ArgumentParser(description="which sample every rank reads, simulated")
    parser.add_argument("--ranks", type=int, default=1024)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    sizes, lengths = make_shards(options.ranks)
    common = {"shard_sizes": sizes, "ranks": options.ranks, "seed": SEED}
    plans = {
        "no index, any order": EpochPlan(**common, batch_size=4),
        "no index, blocks of 32": EpochPlan(**common, batch_size=4, block=32),
        "index, any order": EpochPlan(**common, batch_size=4, lengths=lengths),
        "index, blocks of 32": EpochPlan(**common, batch_size=4, lengths=lengths, block=32),
        "index, packed into rows of 8,192": EpochPlan(**common, batch_size=1, lengths=lengths, capacity=LONGEST),
    }
    found = {}
    for name, plan in plans.items():
        found[name] = simulate(plan, lengths)
        print(f"{name}: {json.dumps(found[name])}")
    record = {
        "environment": environment(),
        "command": " ".join(["python", "bench/simulated_ranks.py", *sys.argv[1:]]),
        "seed": SEED,
        "ranks": options.ranks,
        "shards": len(sizes),
        "samples": len(lengths),
        "mean_tokens": round(float(lengths.mean()), 1),
        "plans": found,
    }
    options.result.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


if __name__ == "__main__":
    main()
