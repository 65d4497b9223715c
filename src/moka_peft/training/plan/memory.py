"""How many parameters a recipe's model has, part by part, and what each GPU holds of them while it trains."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from peft import PeftModel
from torch import Tensor, nn

from moka_peft.training.parts import find_parts
from moka_peft.training.plan.optimizer import optimizer_bytes

STRATEGIES = ("ddp", "fsdp", "zero2", "zero3")
PREFETCHED_LAYERS = 2  # gathered at once: the one that runs and the next
ZERO_BUCKET = 500_000_000  # elements: DeepSpeed's `reduce_bucket_size`, a buffer that is there whole in a backward
HALF, MASTER = 2, 4  # bytes an element: DeepSpeed's weights in mixed precision, and those that its optimizer steps


@dataclass(frozen=True)
class Part:
    """A part of the model: its parameters, those that train, and the bytes of its weights.

    The frozen original of a module that trains in a copy counts in `bytes` alone: PEFT keeps both.
    """

    parameters: int
    trained: int
    bytes: int


@dataclass(frozen=True)
class Held:
    """Bytes that one GPU holds all the time. gathered: of sharded weights, what is whole at once. buckets: the copies
    of gradients that are sent to other processes."""

    weights: int
    gathered: int
    gradients: int
    buckets: int
    optimizer: int

    @property
    def total(self) -> int:
        return self.weights + self.gathered + self.gradients + self.buckets + self.optimizer


def count_parts(model: PeftModel) -> dict[str, Part]:
    """The parts of an adapted model: "text", "vision", "audio", another tower by its name, "projectors", "adapter"."""
    names = find_parts(model.get_base_model())
    found: dict[str, Counter[str]] = {}
    for name, weight in model.named_parameters():
        is_original = ".original_module." in name
        part = found.setdefault(_part_of(name, names), Counter())
        part["bytes"] += weight.nbytes
        part["parameters"] += 0 if is_original else weight.numel()
        part["trained"] += weight.numel() if weight.requires_grad else 0
    place = {"text": 0, "vision": 1, "audio": 2, "projectors": 4, "adapter": 5}
    ordered = sorted(found, key=lambda part: (place.get(part, 3), part))
    return {part: Part(**{key: found[part][key] for key in ("parameters", "trained", "bytes")}) for part in ordered}


def _part_of(name: str, parts: dict[str, list[str]]) -> str:
    path = re.sub(r"\.modules_to_save\.[^.]+|\.original_module", "", name.removeprefix("base_model.model."))
    if re.search(r"\.(lora|moka)_", path):
        return "adapter"
    if any(path.startswith(f"{module}.") for module in parts["projectors"]):
        return "projectors"
    tower = next((tower for tower in parts["towers"] if path.startswith(f"{tower}.")), None)
    if tower is None:
        return "text"
    words = {"vision": ("vision", "visual", "image"), "audio": ("audio", "speech")}
    return next((part for part, known in words.items() if any(word in tower for word in known)), tower)


def count_held(
    model: PeftModel, *, optimizer: str | None, gpus: int = 1, strategy: str = "ddp", half: bool = False
) -> Held:
    """What one of `gpus` holds under `strategy`. half: whether training is in bf16 or fp16, for which DeepSpeed casts
    all weights and keeps float32 ones of what trains. Raises ValueError for an optimizer whose states are unknown."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    weights, gradients = _bytes(model), sum(weight.nbytes for weight in trained)
    states = sum(optimizer_bytes(weight, optimizer) for weight in trained)
    if gpus == 1:
        return Held(weights, 0, gradients, 0, states)
    if strategy == "ddp":
        return Held(weights, 0, gradients, gradients, states)
    if strategy == "fsdp":
        return Held(weights // gpus, _gathered(model), gradients // gpus, _largest_gradients(model), states // gpus)
    elements, width = sum(weight.numel() for weight in trained), HALF if half else MASTER
    share = elements * width // gpus, ZERO_BUCKET * width, (states + (elements * MASTER if half else 0)) // gpus
    weights = _bytes(model, HALF if half else None)
    if strategy == "zero2":
        return Held(weights, 0, *share)
    return Held(weights // gpus, _gathered(model, HALF if half else None), *share)


def _units(model: PeftModel) -> list[nn.Module]:
    """The modules that sharding gathers one by one: the layers that the model lists."""
    base: Any = model.get_base_model()
    listed = set(getattr(base, "_no_split_modules", None) or ())
    layers = [module for module in base.modules() if type(module).__name__ in listed]
    return layers or list(base.get_decoder().layers)


def _gathered(model: PeftModel, width: int | None = None) -> int:
    """What belongs to no layer stays whole for a step; of layers, the largest ones while they run."""
    units = _units(model)
    inside = {id(weight) for unit in units for weight in unit.parameters()}
    root = sum(_size(weight, width) for weight in model.parameters() if id(weight) not in inside)
    return root + PREFETCHED_LAYERS * max(_bytes(unit, width) for unit in units)


def _largest_gradients(model: PeftModel) -> int:
    """Gradients of what is reduced together, before they are divided: of a layer, or of all that is in none."""
    units = _units(model)
    inside = {id(weight) for unit in units for weight in unit.parameters()}
    root = sum(w.nbytes for w in model.parameters() if w.requires_grad and id(w) not in inside)
    return max(root, *(sum(w.nbytes for w in unit.parameters() if w.requires_grad) for unit in units))


def _bytes(module: nn.Module, width: int | None = None) -> int:
    return sum(_size(tensor, width) for tensor in (*module.parameters(), *module.buffers()))


def _size(tensor: Tensor, width: int | None) -> int:
    """Its bytes; with numbers of `width` bytes where that is given."""
    return tensor.numel() * width if width and tensor.is_floating_point() else tensor.nbytes
