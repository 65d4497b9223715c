"""What a method costs: its parameters, what it adds to a forward, and what a training step keeps."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from moka_peft.analysis.compare.ranks import count_adapter
from moka_peft.analysis.speed.kept import kept_bytes
from moka_peft.data import Sample
from moka_peft.training import Recipe, load_model, open_source
from moka_peft.training.activations import enable_checkpointing
from moka_peft.training.folder import read_json, write_json
from moka_peft.training.model import add_adapter
from moka_peft.training.reading import training_collator

FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


@dataclass(frozen=True)
class Cost:
    """flops_per_token: of the adapter in plain torch, in a forward of training samples, per position. kept_bytes: what
    the forward of a training step keeps for its backward, weights and batch not counted; None on a GPU."""

    adapter_parameters: int
    flops_per_token: float
    kept_bytes: int | None


def cost_of(recipe: Recipe, path: Path) -> Cost:
    """The cost of a recipe's method, read from `path`, or measured and written there; several processes may do so."""
    if known := read_json(path):
        return Cost(**known)
    cost = measure_cost(recipe)
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f"{path.name}.{os.getpid()}")
    write_json(own, asdict(cost))
    os.replace(own, path)
    return cost


def measure_cost(recipe: Recipe) -> Cost:
    """Puts the adapter on the model as training does and runs one batch through it."""
    base, processor = load_model(**recipe.model.model_dump(exclude={"start_from"}))
    if recipe.training.gradient_checkpointing:
        enable_checkpointing(base)
    settings: dict[str, Any] = recipe.adapter.model_dump() | {"impl": "eager"}  # kernels of our own are not counted
    model = add_adapter(base, processor, **settings, train=recipe.trained_parts())
    batch = _batch(recipe, processor, model)
    return Cost(count_adapter(model), _flops_per_token(model, batch), _kept(model, batch, recipe))


def _batch(recipe: Recipe, processor: Any, model: Any) -> dict[str, Any]:
    """A training batch of samples from all over the data."""
    samples, count = open_source(recipe.data.train, recipe.data), recipe.training.batch_size
    stride = max(len(samples) // count, 1)
    drawn = [samples[i] for i in range(0, len(samples), stride)][:count]
    collator: Any = training_collator(recipe, processor, model.config, Path())
    batch = getattr(collator, "collator", collator)([sample for sample in drawn if isinstance(sample, Sample)])
    return {key: value.to(model.device) if torch.is_tensor(value) else value for key, value in batch.items()}


def _flops_per_token(model: Any, batch: dict[str, Any]) -> float:
    """With gradients: without them torch's counter fails where a module takes a trained weight, as a Q-Former does."""
    model.eval()
    counts = []
    for context in (nullcontext(), model.disable_adapter()):
        with context, FlopCounterMode(display=False, custom_mapping={FLASH: _flash_flops}) as counter:
            model(**batch, use_cache=False)
        counts.append(counter.get_total_flops())
    return (counts[0] - counts[1]) / batch["input_ids"].numel()


def _flash_flops(query: Sequence[int], key: Sequence[int], *_: Any, **__: Any) -> int:
    """Of torch's flash kernel for the CPU, which its counter does not know, by the shapes of what it takes: scores, and
    sums of values weighed by them."""
    batch, heads, queries, width = query
    return 4 * batch * heads * queries * key[2] * width


def _kept(model: Any, batch: dict[str, Any], recipe: Recipe) -> int | None:
    if torch.cuda.is_available():
        return None
    model.train()
    given = [*model.parameters(), *model.buffers(), *(value for value in batch.values() if torch.is_tensor(value))]
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.training.bf16):
        return kept_bytes(lambda: model(**batch, use_cache=False).loss, given)
