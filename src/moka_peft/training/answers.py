"""Scoring a model by what it writes: greedy answers to held-out questions, compared with the right ones."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from moka_peft.data import Sample


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
            batch = collate([samples[i] for i in range(start, min(start + batch_size, len(samples)))])
            answers += _generate(model, processor, batch, max_new_tokens)
    finally:
        model.train(training)
    return answers


@torch.no_grad()
def _generate(model: Any, processor: Any, batch: dict[str, Any], max_new_tokens: int) -> list[str]:
    batch = {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in batch.items()}
    output = model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False, use_cache=True)
    new = output[:, batch["input_ids"].shape[1] :]  # [B, new tokens]
    return [text.strip() for text in processor.batch_decode(new, skip_special_tokens=True)]


def score_answers(samples: Sequence[Sample], answers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Counts exact matches, over all samples (`all`) and per question group.

    Case, surrounding space and a final full stop are not compared.
    """
    counts: dict[str, list[int]] = {"all": [0, 0]}
    for sample, answer in zip(samples, answers, strict=True):
        for group in ("all", sample.group or "no group"):
            right, total = counts.setdefault(group, [0, 0])
            counts[group] = [right + (normalise(answer) == normalise(sample.answer)), total + 1]
    return {group: _share(right, total) for group, (right, total) in counts.items()}


def normalise(answer: str) -> str:
    """The form in which two answers are compared."""
    return " ".join(answer.casefold().split()).removesuffix(".")


def wilson_interval(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share by Wilson's score method, which holds near 0 and 1 too."""
    if total == 0:
        return 0.0, 1.0
    share, spread = right / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def _share(right: int, total: int) -> dict[str, Any]:
    return {
        "right": right,
        "total": total,
        "accuracy": right / max(total, 1),
        "interval": wilson_interval(right, total),
    }
