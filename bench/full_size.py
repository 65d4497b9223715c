"""Trains a recipe's model at full size with random weights and made-up batches; nothing is downloaded.

    python bench/full_size.py recipes/paper/avt/stage2_llama2.yaml --steps 20       # one GPU of 80 GB
    python bench/full_size.py RECIPE --device cpu --layers 2 --width 64 --steps 4 --out runs/full_size.json

The published architectures, the recipe's adapter, dtype, optimizer, batch size and checkpointing, through the
Trainer of `moka train`. The batch has the recipe's frames, segments and text; its values are random, the loss means
nothing. Writes bench/results/full_size_<recipe>.json: seconds per step (the median after warming up), tokens per
second, peak memory, and beside it what `moka plan` estimates. Exit status 1 where a loss or gradient is not finite.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from meter import Meter
from random_batch import random_batch
from recording import RESULTS, write
from reduced import reduce_architecture
from transformers import TrainerCallback

from moka_peft import media_with_keys
from moka_peft.cli.env import environment
from moka_peft.training.arguments import trainer_arguments
from moka_peft.training.determinism import seed_all
from moka_peft.training.plan.architecture import adapted, build_on, recipe_architecture
from moka_peft.training.plan.plan import batch_of, make_plan
from moka_peft.training.plan.report import as_json
from moka_peft.training.recipe import Recipe
from moka_peft.training.recipe_file import load_recipe
from moka_peft.training.run import ELSEWHERE
from moka_peft.training.trainer import build_trainer
from moka_peft.tuner import MokaModel


class Clock(TrainerCallback):
    """Seconds of every step until the device has finished it, and whether all gradients are numbers."""

    def __init__(self, device: str) -> None:
        self.meter, self.end, self.finite = Meter(device), None, torch.tensor(True, device=device)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.end = self.meter.start()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        gradients = [weight.grad for weight in kwargs["model"].parameters() if weight.grad is not None]
        self.finite = self.finite & torch.stack(torch._foreach_norm(gradients)).isfinite().all()  # waits for nothing

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.end is not None:
            self.end()


def train(recipe: Recipe, model: Any, batch: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Steps on one batch through the Trainer; memory is what is allocated from here on, the model included."""
    settings = recipe.training.model_dump(exclude=ELSEWHERE) | {"steps": options.steps, "epochs": None}
    clock = Clock(options.device)
    with tempfile.TemporaryDirectory() as folder:
        arguments = trainer_arguments(Path(folder), seed=recipe.seed, **settings | {"num_workers": 0})
        arguments.save_strategy = "no"  # pyright: ignore[reportAttributeAccessIssue]
        rows = len(batch["input_ids"])
        samples: Any = [None] * rows * recipe.training.gradient_accumulation * options.steps
        trainer = build_trainer(model, lambda _: dict(batch), samples, arguments, [clock])
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"losses": losses, "gradients_finite": bool(clock.finite), **clock.meter.facts()}


def measure(recipe: Recipe, options: argparse.Namespace) -> dict[str, Any]:
    """The plan, then the same model and batch on the device."""
    if recipe.training.packing:
        raise SystemExit("full_size: the batch has a sample a row. Add training.packing=false.")
    config = recipe_architecture(recipe.model.model_dump())
    if options.layers is not None:
        config = reduce_architecture(config, options.layers, options.width)
    meta = build_on("meta", config, recipe.model.dtype)
    if not hasattr(meta, "embed_media") and config.model_type != "llava":
        raise SystemExit(f"full_size: the inputs of {config.model_type} only its processor makes. Take a composite.")
    plan = make_plan(recipe, tokens=options.tokens, base=meta)

    seed_all(options.seed)
    base = build_on(options.device, config, recipe.model.dtype)
    model = adapted(base, recipe.adapter.model_dump(), recipe.trained_parts())
    planned = batch_of(base, recipe, plan.heaviest)
    batch = random_batch(model, planned, torch.Generator().manual_seed(options.seed))
    run = train(recipe, model, batch, options)
    if isinstance(model.base_model, MokaModel):
        run["media_with_keys"] = media_with_keys(model)["default"]
    seconds = statistics.median(run["seconds"][options.warmup :])
    tokens = plan.rows * plan.row_length * recipe.training.gradient_accumulation
    facts = {"seconds_per_step": round(seconds, 4), "tokens_per_step": tokens, "tokens_per_second": tokens / seconds}
    return {"measured": {**facts, "warmup_steps": options.warmup, **run}, "planned": planned_facts(plan), **sizes(plan)}


def planned_facts(plan: Any) -> dict[str, Any]:
    """What `moka plan` says of memory, in GiB; `allocated` is what torch's allocator should show."""
    bytes_ = as_json(plan)["bytes_per_gpu"]
    activations = {name: round(size / 2**30, 3) for name, size in bytes_.pop("activations").items()}
    gib = {name: round(size / 2**30, 3) for name, size in bytes_.items()}
    return {**gib, "activations": activations, "allocated": round(gib["total"] - gib["runtime"], 3)}


def sizes(plan: Any) -> dict[str, Any]:
    """Parameters by part, and the batch."""
    facts = as_json(plan)
    return {name: facts[name] for name in ("parameters", "parts", "micro_batch", "samples", "not_counted")}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("settings", nargs="*", help="key=value over the recipe")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3, help="steps before those whose median is taken")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tokens", type=int, help="of a sample, media and text; by default as `moka plan` estimates")
    parser.add_argument("--layers", type=int, help="of every part, to try it on a CPU; with --width")
    parser.add_argument("--width", type=int, default=64, help="of every part, where --layers is given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_intermixed_args(arguments)
    if options.steps <= options.warmup:
        parser.error(f"--steps: expected more than the {options.warmup} of --warmup, got {options.steps}.")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device: torch finds no CUDA device. Take --device cpu --layers 2.")
    if torch.cuda.device_count() > (options.device == "cuda"):  # the Trainer takes all that it finds
        parser.error(f"--device: {options.device}, but torch finds more GPUs. Set CUDA_VISIBLE_DEVICES to 0, or to ''.")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    options = parse(arguments)
    command = ["python", "bench/full_size.py", *(sys.argv[1:] if arguments is None else arguments)]
    recipe = load_recipe(options.recipe, options.settings, without_files=True)
    found = measure(recipe, options)
    name = "_".join(options.recipe.with_suffix("").parts[-2:])
    out = options.out or RESULTS / f"full_size_{name}.json"
    reduced = None if options.layers is None else {"layers": options.layers, "width": options.width}
    record = {"environment": environment(), "command": " ".join(command), "seed": options.seed, "reduced": reduced}
    write(out, {**record, "recipe": str(options.recipe), **found})
    measured, planned = found["measured"], found["planned"]
    print(
        f"{measured['seconds_per_step']} s a step, {measured['tokens_per_second']:.0f} tokens/s; peak "
        f"{measured['peak_gib']} GiB, planned {planned['allocated']} GiB; in {out}"
    )
    sound = measured["gradients_finite"] and all(math.isfinite(loss) for loss in measured["losses"])
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
