"""Functions run in several processes that form one torch process group, as under torchrun."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import time
from collections.abc import Sequence
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import torch

RANK = Path(__file__).with_name("rank.py")
PRELOADED = ["moka_peft.training", "transformers.trainer", "sklearn.datasets", "torch.distributed.fsdp"]
LAST_LINES = 40  # of a failed rank's output


def forking() -> BaseContext:
    """Starts processes that need not import torch again: they fork from one that has."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


class Launch:
    """`count` processes that each call `function` ("module:name" from the root of the checkout) with `settings`.

    Each sees RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; one process alone sees none of them. What they print
    and what they return lie in `folder`.
    """

    def __init__(self, context: BaseContext, folder: Path, function: str, settings: dict[str, Any], count: int):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        self.processes = []
        for rank in range(count):
            place = {"rank": rank, "count": count, "port": port, "folder": str(folder)}
            values = {"function": function, "settings": settings, **place}
            process: Any = context.Process(target=runpy.run_path, args=(str(RANK), values, "__main__"))  # pyright: ignore
            process.start()
            self.processes.append(process)

    def results(self, timeout_seconds: float = 120) -> list[Any]:
        """What each rank returned. Raises AssertionError with a rank's traceback where one failed, none ended in time.

        The first failure ends the others, which wait for it for ever.
        """
        codes = self.wait(timeout_seconds)
        failed = [rank for rank, code in enumerate(codes) if code]
        if failed:
            cause = min(failed, key=lambda rank: (codes[rank] < 0, rank))  # not one that was ended for another's sake
            raise AssertionError(f"rank {cause} of {len(codes)} failed ({codes}):\n{self.output(cause)}")
        return [torch.load(self.folder / f"rank{rank}.pt", weights_only=False) for rank in range(len(self.processes))]

    def wait(self, timeout_seconds: float = 120) -> list[int]:
        """Exit codes, negative for signals; the others are killed once one has failed or time is up."""
        deadline = time.monotonic() + timeout_seconds
        while any(process.is_alive() for process in self.processes):
            is_late = time.monotonic() > deadline
            if is_late or any(process.exitcode for process in self.processes):
                time.sleep(0 if is_late else 1)  # for a rank that failed in the same step to say so
                for process in self.processes:
                    process.kill()
            time.sleep(0.02)
        for process in self.processes:
            process.join()
        return [process.exitcode for process in self.processes]

    def output(self, rank: int) -> str:
        """The last lines that a rank printed."""
        lines = (self.folder / f"rank{rank}.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-LAST_LINES:])


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def rank_environment(rank: int, count: int, port: int) -> dict[str, str]:
    """What torchrun would set."""
    if count == 1:
        return {}
    values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in values.items()}}


def redirect_output(path: Path) -> None:
    """Sends this process's output, that of C++ included, to a file."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)


def difference(losses: Sequence[float], expected: Sequence[float]) -> float:
    """The largest relative difference between two trajectories. Raises where they differ in length."""
    return max(abs(a - b) / abs(b) for a, b in zip(losses, expected, strict=True))


def shard_on_cpu() -> None:
    """Lets accelerate shard on the CPU.

    Without an accelerator it takes DDP in place of FSDP, and with DeepSpeed it counts one process; it says neither.
    """
    from accelerate.state import AcceleratorState, DistributedType, PartialState

    if getattr(AcceleratorState, "shards_on_cpu", False) or "LOCAL_RANK" not in os.environ:
        return
    build: Any = AcceleratorState.__init__

    def build_sharding(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        build(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            if self._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = build_sharding
    PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_CPU)
    AcceleratorState.shards_on_cpu = True
