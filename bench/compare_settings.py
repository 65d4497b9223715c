"""Chooses the settings of recipes/compare on LoRA alone, before any other method runs, and records every trial.

    python bench/compare_settings.py av_digits training.learning_rate=2e-3,4e-3 training.steps=200,300

All combinations of the values are tried, on questions that are not the suite's: training samples and order of seed 100,
and held-out questions of seed 100 about images of the split "align", none of which a recipe trains on or tests with.
Adds its trials to bench/results/compare_settings.json; a trial that is there already is not repeated.
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from moka_peft.cli.env import environment
from moka_peft.training import train
from moka_peft.training.recipe import Recipe
from moka_peft.training.recipe_file import load_recipe

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results" / "compare_settings.json"
SEED = 100
OTHER_QUESTIONS = (
    "adapter.method=lora", f"seed={SEED}", f"data.train.seed={SEED}", f"data.eval.seed={SEED}", "data.eval.split=align",
)  # fmt: skip


def combine(axes: list[str]) -> list[list[str]]:
    """["a=1,2", "b=3"] as [["a=1", "b=3"], ["a=2", "b=3"]]; a value in brackets or braces is one value."""
    choices = []
    for axis in axes:
        key, _, values = axis.partition("=")
        choices.append([f"{key}={value}" for value in ([values] if values[:1] in "[{" else values.split(","))])
    return [list(settings) for settings in itertools.product(*choices)]


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """What the trials choose between, as it was in one, whatever the recipe's file says later."""
    chosen = recipe.training.model_dump(include={"steps", "batch_size", "learning_rate", "scheduler", "warmup_steps"})
    adapter = recipe.adapter.model_dump(include={"method", "r", "lora_alpha"})
    data = recipe.data.model_dump(include={"train", "eval"}, exclude_none=True)
    return {**chosen, **adapter, **data, "trained_parts": list(recipe.trained_parts())}


def run_trial(recipe: str, settings: list[str]) -> dict[str, Any]:
    """Trains LoRA once; what it reached, how its loss went, and the seconds of the process and on the clock."""
    overrides = [*OTHER_QUESTIONS, "output_dir=runs/compare_settings", "overwrite=true", *settings]
    start, cpu = time.monotonic(), time.process_time()
    checked = load_recipe(ROOT / "recipes" / "compare" / f"{recipe}.yaml", overrides)
    metrics = train(checked, Console(quiet=True))
    return {
        "recipe": recipe,
        "settings": settings,
        "in_full": settings_of(checked),
        "after": {group: round(100 * score["accuracy"], 1) for group, score in metrics["after"].items()},
        "held_out_loss": round(metrics["held_out_loss"]["after"], 4),
        "during": [
            {"step": entry["step"], "accuracy": round(100 * entry["scores"]["all"]["accuracy"], 1),
             "held_out_loss": round(entry["held_out_loss"], 4)}
            for entry in metrics["during"]
        ],
        "trained_parameters": metrics["trained_parameters"],
        "seconds": round(time.monotonic() - start, 1),
        "process_seconds": round(time.process_time() - cpu, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("axes", nargs="*", help="key=value,value,...")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    kept = json.loads(options.out.read_text()) if options.out.exists() else {"trials": []}
    kept |= {"environment": environment(), "common": list(OTHER_QUESTIONS)}
    done = [(trial["recipe"], trial["settings"]) for trial in kept["trials"]]
    for settings in combine(options.axes):
        if (options.recipe, settings) in done:
            continue
        trial = run_trial(options.recipe, settings)
        kept["trials"].append(trial)
        options.out.write_text(json.dumps(kept, indent=1) + "\n")
        print(json.dumps(trial), flush=True)


if __name__ == "__main__":
    main()
