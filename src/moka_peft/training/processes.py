"""Several processes of one run, as `torchrun` or `accelerate launch` start them; alone, all of this does nothing."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

T = TypeVar("T")


class OtherProcessError(RuntimeError):
    """Ends a process because process 0 failed, which says so itself."""

    is_shown_elsewhere = True


def rank() -> int:
    """This process's number among all of the run; 0 is the one that writes and shows."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes the run has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_device() -> str:
    """The device of this process: its own GPU on the machine, or the CPU."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def is_sharded() -> bool:
    """Whether `accelerate launch` was told to shard the model over the processes (FSDP, ZeRO-3)."""
    fsdp, zero = (os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() for name in ("FSDP", "DEEPSPEED"))
    is_zero_3 = zero in ("1", "true") and os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3"
    return fsdp in ("1", "true") or is_zero_3


@contextmanager
def process_group(patience: timedelta | None = None) -> Iterator[None]:
    """Connects the processes of a run, before transformers would: gloo on the CPU, NCCL on GPUs.

    A group that the caller made stays; one made here ends with the block, but not after an error, where the others
    may be waiting for what will never come: then the launcher ends them all. patience: how long one waits for
    another, if not the minutes that torch would.
    """
    if world_size() == 1 or distributed.is_initialized():
        yield
        return
    device = torch.device(local_device())
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
    yield
    distributed.barrier()
    distributed.destroy_process_group()


def on_first(action: Callable[[], T]) -> T:
    """Does something in process 0 alone while the others wait, and gives all of them its result.

    What it raises goes up in process 0; in the others it is an OtherProcessError, so that none waits for ever.
    """
    if not is_connected():
        return action()
    result, problem, error = None, None, None
    if rank() == 0:
        try:
            result = action()
        except BaseException as caught:
            problem, error = f"{type(caught).__name__}: {caught}", caught
    box = [(result, problem)]
    distributed.broadcast_object_list(box, src=0)
    if error is not None:
        raise error
    if box[0][1] is not None:
        raise OtherProcessError(f"process 0 ended with {box[0][1]}")
    return box[0][0]  # pyright: ignore[reportReturnType]


def gather(own: T) -> list[T]:
    """What each process has, in the order of the processes, in all of them."""
    if not is_connected():
        return [own]
    found: list[T | None] = [None] * world_size()
    distributed.all_gather_object(found, own)
    return found  # pyright: ignore[reportReturnType]


def own_share(count: int) -> range:
    """Which of `count` items fall to this process: every n-th, so that no two shares differ by more than one."""
    return range(rank(), count, world_size()) if is_connected() else range(count)


def merge_shares(shares: Sequence[Sequence[T]]) -> list[T]:
    """Puts what the processes made of their `own_share` back in order."""
    count = sum(map(len, shares))
    return [shares[index % len(shares)][index // len(shares)] for index in range(count)]


def is_connected() -> bool:
    """Whether several processes can talk to each other here."""
    return world_size() > 1 and distributed.is_available() and distributed.is_initialized()
