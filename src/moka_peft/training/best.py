"""Which step of a run is its best, and whether it is worth going on: both read from the Trainer's log."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import TrainerState

from moka_peft.training.metrics import LOWER_IS_BETTER, value_of

Log = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class Stopping:
    """A run ends when `metric` has not got better by more than `min_delta` in `patience` evaluations."""

    metric: str
    patience: int
    min_delta: float = 0.0


def best_step(log: Log, metric: str) -> int | None:
    """The step at which a held-out metric ("loss" or the recipe's) was best, the first of equals; None before any."""
    values = held_out_values(log, metric)
    return max(values, key=lambda step: values[step], default=None)


def is_over(log: Log, stopping: Stopping) -> bool:
    """Whether the last `patience` evaluations brought nothing."""
    best, without = float("-inf"), 0
    for value in held_out_values(log, stopping.metric).values():
        improved = value > best + stopping.min_delta
        best, without = (value, 0) if improved else (best, without + 1)
    return without >= stopping.patience


def held_out_values(log: Log, metric: str) -> dict[int, float]:
    """Step -> value, such that more is better."""
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    found = {}
    for entry in log:
        if "scores" in entry:
            value = entry["held_out_loss"] if metric == "loss" else value_of(entry["scores"]["all"])
            found[entry["step"]] = sign * value
    return found


def is_last(state: TrainerState, stopping: Stopping | None) -> bool:
    """Whether a run has nothing left to train at a state: it has made all steps, or was stopped before."""
    stopped = stopping is not None and is_over(state.log_history, stopping)
    return state.global_step >= state.max_steps or stopped
