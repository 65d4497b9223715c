"""Timings of several ways to do the same work, in turn, so that what the machine does meets all of them alike."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from .machine_load import MachineLoad

AGAIN = " again"  # a provider "base again" is "base" a second time
REPEATABLE = 0.03  # how far the medians of the two may lie apart
QUIET = 0.15  # cores that others may use

Providers = Mapping[str, Callable[[], Any]]


@dataclass(frozen=True)
class Run:
    """One interleaved run. `seconds`: provider -> one per round. `void`: why it does not count, empty where it does."""

    seconds: dict[str, list[float]]
    order_seed: int
    load: dict[str, Any]
    void: list[str] = field(default_factory=list)
    attempts: int = 1

    def median(self, provider: str) -> float:
        return statistics.median(self.seconds[provider])

    def facts(self) -> dict[str, Any]:
        """What is recorded of a run next to its results."""
        return {
            "rounds": len(next(iter(self.seconds.values()))),
            "order_seed": self.order_seed,
            "attempts": self.attempts,
            "void": self.void,
            "base_over_base": {name: round(ratio, 4) for name, ratio in repeats(self.seconds).items()},
            **self.load,
        }


def measure(
    providers: Providers,
    *,
    rounds: int = 25,
    warmup: int = 3,
    seed: int = 0,
    device: str = "cpu",
    attempts: int = 3,
    say: Callable[[str], None] | None = None,
) -> Run:
    """Times `rounds` repetitions of every provider, in an order that is shuffled for each round.

    Where a provider "X again" is more than 3 % off "X", or others used the processor, the run is void and repeated;
    after `attempts` runs the last is given, void. `say` is told why, and before the first run how long one takes.
    """
    for name in providers:
        if name.endswith(AGAIN) and name.removesuffix(AGAIN) not in providers:
            raise ValueError(f"`providers`: {name!r} repeats a provider that is not among {list(providers)}.")
    started = time.perf_counter()
    time_rounds(providers, rounds=warmup, seed=seed, device=device)
    if say is not None and warmup:
        seconds = (time.perf_counter() - started) / warmup * rounds
        say(f"{len(providers)} providers, {rounds} rounds: about {seconds:.0f} s")
    run = None
    for attempt in range(1, max(attempts, 1) + 1):
        load = MachineLoad()
        seconds = time_rounds(providers, rounds=rounds, seed=seed + attempt, device=device)
        facts = load.facts()
        run = Run(seconds, seed + attempt, facts, why_void(seconds, facts), attempt)
        if not run.void:
            break
        if say is not None:
            say("void: " + "; ".join(run.void))
    assert run is not None
    return run


def time_rounds(providers: Providers, *, rounds: int, seed: int, device: str = "cpu") -> dict[str, list[float]]:
    """Provider -> seconds of each round, until the device has finished the work; no garbage is collected meanwhile."""
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    rng, names = random.Random(seed), list(providers)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with _without_collection():
        for _ in range(rounds):
            gc.collect()  # between rounds: cycles would keep tensors
            for name in rng.sample(names, len(names)):
                wait()
                start = time.perf_counter()
                providers[name]()
                wait()
                seconds[name].append(time.perf_counter() - start)
    return seconds


def repeats(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Provider -> its median over that of its repetition, for those that have one."""
    pairs = {name: name + AGAIN for name in seconds if name + AGAIN in seconds}
    return {a: statistics.median(seconds[a]) / statistics.median(seconds[b]) for a, b in pairs.items()}


def why_void(seconds: Mapping[str, list[float]], load: Mapping[str, Any]) -> list[str]:
    """Why a run does not count: one reason each; empty where it does."""
    reasons = [
        f"{name!r} took {ratio:.3f} of {name + AGAIN!r}: expected 1 within {REPEATABLE:.0%}"
        for name, ratio in repeats(seconds).items()
        if max(ratio, 1 / ratio) > 1 + REPEATABLE
    ]
    other = load.get("other_cores")
    if other is not None and other > QUIET:
        reasons.append(f"other processes used {other:.2f} cores: expected at most {QUIET}")
    return reasons


@contextmanager
def _without_collection() -> Iterator[None]:
    """No automatic collection inside; one that is asked for looks at what is new alone, a tenth of a second less."""
    was_on = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()
