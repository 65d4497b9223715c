"""What an optimizer keeps of every weight that trains."""

from __future__ import annotations

from torch import Tensor

BLOCK = 256  # elements of an 8-bit state that share a float32 scale (bitsandbytes)
LEAST_8BIT = 4096  # elements: states of smaller weights stay in 32 bits
MOMENTS = {"adafactor": 1, "adam": 2, "lion": 1, "ademamix": 3, "rmsprop": 1, "adagrad": 1, "sgd": 0}
"""States per element, by a word of the optimizer's name; the first that fits."""
OTHERS = ("galore", "apollo", "lomo", "4bit", "anyprecision", "grok", "schedule_free_sgd")
"""Words of optimizers whose states are of another rank, dtype or number than their family's."""


def optimizer_bytes(weight: Tensor, optimizer: str | None) -> int:
    """The states of one weight, by the Trainer's name of the optimizer; None: AdamW, two moments of its own dtype.

    Raises ValueError for an optimizer whose states are unknown.
    """
    name, elements = optimizer or "adamw_torch_fused", weight.numel()
    moments = next((count for word, count in MOMENTS.items() if word in name), None)
    if moments is None or any(word in name for word in OTHERS):
        raise ValueError(
            f"`training.optimizer` {name} is none whose states are known here: expected a name with one of "
            f"{', '.join(MOMENTS)}, and none of {', '.join(OTHERS)}. Take another for the plan: "
            f"training.optimizer=adamw_torch"
        )
    if "adafactor" in name:
        rows = sum(weight.shape[-2:]) if weight.dim() > 1 else elements
        return 4 * rows
    if "8bit" in name and elements >= LEAST_8BIT:
        return moments * (elements + 4 * -(-elements // BLOCK))
    return moments * elements * weight.element_size()
