"""Settings under which the same run gives the same weights, bit for bit."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def fixed_threads(count: int) -> Iterator[None]:
    """torch computes with `count` threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def deterministic(num_threads: int, kernels: bool | None = None) -> Iterator[None]:
    """Makes torch repeat itself inside the block: a fixed number of CPU threads, deterministic kernels.

    Sums over several threads depend on how many there are, so a resumed run takes the number it began with.
    kernels: None means yes on the CPU and no on a GPU, where they cost speed and some do not exist: then True
    raises RuntimeError inside. The former settings come back after the block.
    """
    was_on = torch.are_deterministic_algorithms_enabled()
    on_gpu = torch.cuda.is_available()
    if on_gpu and kernels:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with fixed_threads(num_threads):
        torch.use_deterministic_algorithms(not on_gpu if kernels is None else kernels)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(was_on)


def seed_all(seed: int) -> None:
    """Starts every random number generator that training draws from at `seed`."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
