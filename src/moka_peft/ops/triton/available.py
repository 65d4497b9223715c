"""Whether the Triton kernels can be used: here, at this dtype and rank, and with the right results.

Triton itself is imported only where everything else speaks for it.
"""

from __future__ import annotations

import importlib.util
import logging
import os

import torch

from .tiles import LARGEST_RANK

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CAPABILITY = (8, 0)  # the oldest that Triton supports

logger = logging.getLogger(__name__)
_results: dict[tuple[torch.device, torch.dtype, int], bool] = {}


def usable(device: torch.device, dtype: torch.dtype, rank: int) -> bool:
    """Whether impl="auto" takes the kernels: on CUDA, after their results were compared with `ops.eager`'s, once.

    One warning says so where they fail or differ.
    """
    if device.type != "cuda":
        return False
    key = (device, dtype, rank)
    if key not in _results:
        if obstacle(device, dtype, rank):
            _results[key] = False
        elif torch.cuda.is_current_stream_capturing():
            return False  # comparing reads from the device, which a graph's capture forbids
        else:
            _results[key] = _agree(device, dtype, rank)
    return _results[key]


def require(device: torch.device, dtype: torch.dtype, rank: int) -> None:
    """Raises ValueError, saying what to do, where impl="triton" cannot work."""
    problem = obstacle(device, dtype, rank)
    if problem:
        raise ValueError(f"`impl`='triton': {problem}. Use impl='auto', which falls back to torch, or 'eager'.")


def obstacle(device: torch.device, dtype: torch.dtype, rank: int) -> str | None:
    """Why the kernels cannot run, or None."""
    if dtype not in DTYPES:
        return f"expected float32, bfloat16 or float16, got {dtype}"
    if not 1 <= rank <= LARGEST_RANK:
        return f"expected a rank of 1 to {LARGEST_RANK}, got {rank}"
    if device.type == "cuda":
        return _cuda_obstacle(device)
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":
        return None
    return f"expected a CUDA device, got {device} (on a CPU, only Triton's interpreter: TRITON_INTERPRET=1)"


def _cuda_obstacle(device: torch.device) -> str | None:
    if torch.version.hip is not None:
        return "expected an NVIDIA GPU, got an AMD one, where the kernels were never run"
    capability = torch.cuda.get_device_capability(device)
    if capability < CAPABILITY:
        return "expected compute capability {}.{} or later, got {}.{}".format(*CAPABILITY, *capability)
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed (pip install 'moka-peft[gpu]')"
    return None


def _agree(device: torch.device, dtype: torch.dtype, rank: int) -> bool:
    from .agreement import disagreement

    try:
        problem = disagreement(device, dtype, rank)
    except Exception as error:  # whatever the compiler or the driver raises: torch computes the same
        problem = f"{type(error).__name__}: {error}"
    if problem:
        logger.warning("Triton kernels are not used on %s for %s at rank %d: %s", device, dtype, rank, problem)
    return problem is None


__all__ = ["obstacle", "require", "usable"]
