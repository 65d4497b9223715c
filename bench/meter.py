"""Meter: seconds and peak memory of work on one device."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import torch


class Meter:
    """Measures from its construction on; memory is None on the CPU.

    `held_gib`: what was allocated at the start. `peak_gib`: the most that was allocated since, weights included.
    """

    def __init__(self, device: str) -> None:
        self.on_gpu = torch.device(device).type == "cuda"
        self.seconds: list[float] = []
        self._wait()  # also starts CUDA, without which there are no statistics to reset
        if self.on_gpu:
            gc.collect()  # an adapter that was taken off may still hold memory through a cycle
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        self.held_gib = self._gib("memory_allocated")

    def run(self, work: Callable[[], Any]) -> Any:
        """Does `work` and notes its seconds, until the device has finished it."""
        end = self.start()
        result = work()
        end()
        return result

    def start(self) -> Callable[[], None]:
        """The same for work that is done elsewhere: what is returned notes the seconds since."""
        self._wait()
        start = time.perf_counter()

        def end() -> None:
            self._wait()
            self.seconds.append(round(time.perf_counter() - start, 4))

        return end

    def facts(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "held_gib": self.held_gib,
            "peak_gib": self._gib("max_memory_allocated"),
            "peak_reserved_gib": self._gib("max_memory_reserved"),
        }

    def _wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def _gib(self, name: str) -> float | None:
        return round(getattr(torch.cuda, name)() / 2**30, 3) if self.on_gpu else None
