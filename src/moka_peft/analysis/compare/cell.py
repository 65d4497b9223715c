"""One run of a comparison, from nothing or from where it was interrupted, to its result.json."""

import gc
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from moka_peft.analysis.compare.cells import Cell, identity
from moka_peft.analysis.compare.cost import Cost, cost_of
from moka_peft.analysis.compare.results import RESULT, Result, read_result
from moka_peft.training import Recipe, load_recipe, train
from moka_peft.training.folder import CHECKPOINTS, RECIPE, write_json
from moka_peft.training.metrics import value_of

COSTS = "costs"
PACKAGES = ("torch", "transformers", "peft", "moka-peft")


def run_cell(cell: Cell, folder: Path) -> Result:
    """The result of a run in `folder`; trains what is not trained yet, and does nothing where it is finished."""
    if (finished := read_result(folder)) is not None:
        return finished
    if not (folder / RECIPE).is_file():
        shutil.rmtree(folder, ignore_errors=True)  # it ended before it said which run it is
    recipe = _own_recipe(cell, folder)
    try:
        metrics = train(recipe, Console(quiet=True))
    finally:
        _free_memory()
    cost = cost_of(recipe, folder.parent.parent / COSTS / f"{cell.kind}.json")
    result = _result(cell, folder, metrics, cost)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # first: nobody comes back to a folder with a result
    write_json(folder / RESULT, result.as_json())
    return result


def _own_recipe(cell: Cell, folder: Path) -> Recipe:
    """The recipe that the run in `folder` began with, where there is one: keys without effect may differ since."""
    recipe = cell.recipe
    if (folder / RECIPE).is_file():
        recipe = load_recipe(folder / RECIPE)
        if identity(recipe.settings()) != cell.identity:
            raise ValueError(f"`out` holds another run in {folder}: its recipe is not this run's. Remove the folder.")
    return recipe.model_copy(update={"output_dir": str(folder), "resume": True, "overwrite": False})


def _result(cell: Cell, folder: Path, metrics: dict[str, Any], cost: Cost) -> Result:
    scores = metrics["after"]
    return Result(
        cell=folder.name,
        variant=cell.variant,
        seed=cell.seed,
        settings=cell.settings,
        metric=cell.recipe.evaluation.metric,
        score=value_of(scores["all"]),
        groups={group: value_of(score) for group, score in scores.items() if group != "all"},
        questions=scores["all"]["total"],
        loss=metrics["held_out_loss"]["after"],
        adapter_parameters=cost.adapter_parameters,
        trained_parameters=metrics["trained_parameters"],
        flops_per_token=cost.flops_per_token,
        seconds=metrics["seconds"],
        peak_bytes=cost.kept_bytes if metrics["peak_bytes"] is None else metrics["peak_bytes"],
        steps=metrics["steps"],
        machine=machine(metrics["num_threads"]),
        folder=folder,
    )


def machine(threads: int) -> dict[str, Any]:
    """What a run ran on, with so many threads of the CPU."""
    on_gpu = torch.cuda.is_available()
    facts = {"device": torch.cuda.get_device_name() if on_gpu else platform.machine(), "cpus": os.cpu_count()}
    return facts | {"threads": threads} | {name: metadata.version(name) for name in PACKAGES}


def _free_memory() -> None:
    """Gives back what the model took, before the next one comes."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
