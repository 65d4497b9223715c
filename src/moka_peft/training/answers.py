"""What a model makes of held-out samples: greedy answers to their questions, and the loss on the right ones."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from moka_peft.data import Sample
from moka_peft.data.collator import IGNORED
from moka_peft.training.processes import is_sharded


def generate_answers(
    model: Any,
    processor: Any,
    collate: Callable[[list[Sample]], dict[str, Any]],
    samples: Sequence[Sample],
    *,
    batch_size: int,
    max_new_tokens: int,
) -> list[str]:
    """Answers each sample's question greedily; the sample's own answer is not shown to the model.

    collate: left-padded prompts, as `Collator.collate_prompts` makes them. Leaves the model in the mode it was in.
    """
    training = model.training
    model.eval()
    answers: list[str] = []
    try:
        for start in range(0, len(samples), batch_size):
            asked = [samples[i] for i in range(start, min(start + batch_size, len(samples)))]
            answers += answer_batch(model, processor, collate(asked), max_new_tokens)[
                : len(asked)
            ]  # without blank rows
    finally:
        model.train(training)
    return answers


@torch.no_grad()
def answer_batch(model: Any, processor: Any, batch: dict[str, Any], max_new_tokens: int) -> list[str]:
    """The greedy answer to each row of a batch of left-padded prompts; the model is in the mode to answer in."""
    batch = _on_device(batch, model)
    options = {"synced_gpus": True} if is_sharded() else {}  # a process that is done goes on until all are
    output = model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False, use_cache=True, **options)
    new = output[:, batch["input_ids"].shape[1] :]  # [B, new tokens]
    return [text.strip() for text in processor.batch_decode(new, skip_special_tokens=True)]


@torch.no_grad()
def sum_losses(
    model: Any,
    collate: Callable[[list[Sample]], dict[str, Any]],
    samples: Sequence[Sample],
    *,
    batch_size: int,
) -> tuple[float, int]:
    """The sum of the losses on all answer tokens of the samples, and how many tokens that are.

    collate: training batches with labels, as a `Collator` makes them. Leaves the model in the mode it was in.
    """
    training = model.training
    model.eval()
    total, tokens = 0.0, 0
    try:
        for start in range(0, len(samples), batch_size):
            batch = collate([samples[i] for i in range(start, min(start + batch_size, len(samples)))])
            count = int((batch["labels"][:, 1:] != IGNORED).sum())
            if count or is_sharded():
                loss = float(model(**_on_device(batch, model), use_cache=False).loss)
                total, tokens = total + (loss * count if count else 0.0), tokens + count
    finally:
        model.train(training)
    return total, tokens


def _on_device(batch: dict[str, Any], model: Any) -> dict[str, Any]:
    return {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in batch.items()}
