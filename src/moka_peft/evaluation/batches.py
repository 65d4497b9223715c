"""The batches of a benchmark, loaded ahead: media are decoded and collated while the model answers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from moka_peft.data import Collator
from moka_peft.evaluation.task import Task


class Batches(Dataset[dict[str, Any]]):
    """Each of the task's batches as left-padded prompts. Raises ValueError or OSError, naming file and row, where a
    question's media cannot be read."""

    def __init__(self, task: Task, collator: Collator):
        self.task, self.collator = task, collator

    def __len__(self) -> int:
        return len(self.task.batches)

    def __getitem__(self, number: int) -> dict[str, Any]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a worker process: sums over several threads may differ in the last bit
        try:
            return self.collator.collate_prompts(
                [self.task.sample(question, self.collator.media) for question in self.task.batches[number]]
            )
        finally:
            torch.set_num_threads(threads)


def load_ahead(batches: Batches, numbers: Sequence[int], workers: int) -> DataLoader[dict[str, Any]]:
    """The batches of these numbers, in this order, from `workers` processes; 0: made here, when they are asked for."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available(),
    )


def _as_it_is(batch: Any) -> Any:
    return batch
